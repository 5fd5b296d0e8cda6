"""`predict`: opens input and output, finds adapter and model, and has the rows labelled."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import stat
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from nlijob.analysis.wording import clock, plural, which
from nlijob.config import Device, JobConfig
from nlijob.console import Console
from nlijob.data.corpora import find_columns
from nlijob.data.text import compression_of, format_of, open_bytes
from nlijob.errors import ConfigurationError, StoppedError
from nlijob.hub import Hub
from nlijob.launch import GpuSide
from nlijob.records.job import Progress
from nlijob.records.use import UseTask
from nlijob.stopping import Stopped
from nlijob.use.labelling import Counts, Labelling, OnError, label_rows
from nlijob.use.output import NoReaderError, Output
from nlijob.use.rows import ENDINGS, Columns, Format, Lines, RowReader, row_reader
from nlijob.use.tuned import Tuned, find_model, find_tuned, with_device, with_model
from nlijob.use.workspace import Workspace, workspace

STANDARD_INPUT = Path("-")


@dataclass(frozen=True)
class Request:
    """What `predict` was asked for."""

    source: Path
    """Folder of a run or of an adapter."""
    rows: Path = STANDARD_INPUT
    output: Path | None = None
    """None for standard output."""
    kind: Format | None = None
    """None for what a file's name says."""
    premise_column: str | None = None
    hypothesis_column: str | None = None
    base: bool = False
    """Use the base model, without the adapter."""
    on_error: OnError = "stop"
    model: str | None = None
    """Where the base model is now; None where the run had it."""
    device: Device = "auto"
    offline: bool = False


def predict(request: Request, console: Console) -> Counts:
    """Label the rows, and return what became of them.

    Raises JobError; what was written before stays. Returns early if nobody reads standard output.
    """
    kind = request.kind or _format(request)
    _check_paths(request, kind)
    tuned = find_tuned(request.source)
    with ExitStack() as stack:
        place = stack.enter_context(workspace())
        config = with_device(with_model(tuned.config, request.model), request.device)
        device, trusts_code = config.model.device, config.model.trust_remote_code
        gpu_side = stack.enter_context(
            GpuSide(place.run, device, work="predict", trusts_code=trusts_code)
        )
        gpu_side.start()  # its imports take longer than what comes before its work
        reader = _reader(stack.enter_context(_opened(request.rows)), request, kind, config)
        output = stack.enter_context(Output(request.output))
        names = config.data.label_names
        show = _progress(console, _size(request.rows))
        labelling = Labelling(reader, output, kind, names, request.on_error, console.warn, show)
        console.line(f"      columns added: {', '.join(labelling.columns.names)}")
        tuned = dataclasses.replace(tuned, config=config)
        try:
            with _told_where_it_ended(output):
                _begin(gpu_side, place, tuned, request, console)
                label_rows(labelling, gpu_side, place)
        except NoReaderError:
            console.line("nobody reads standard output any longer: ended early")
            return labelling.counts
    _say_end(console, labelling, output)
    return labelling.counts


def _begin(
    gpu_side: GpuSide, place: Workspace, tuned: Tuned, request: Request, console: Console
) -> None:
    """Have the GPU side load the model."""
    hub = Hub(request.offline, console.line)
    model_dir, stamp = find_model(tuned, hub, console.warn)
    adapter = None if request.base else str(tuned.adapter.absolute())
    place.prepare(tuned.config, UseTask(adapter, tuned.label_tokens), tuned.checked_rows)
    where = "GPU" if tuned.config.model.device == "cuda" else "CPU"
    model = f"{tuned.config.model.name}{' without the adapter' if request.base else ''}"
    console.line(f"      loading {model} on the {where}")
    place.give(gpu_side, model_dir, stamp)


# ---------------------------------------------------------------- input and output


def _format(request: Request) -> Format:
    """The format that a name says."""
    for path in (request.rows, request.output):
        if path is not None and format_of(path) in ENDINGS:
            return ENDINGS[format_of(path)]
    what = "standard input" if request.rows == STANDARD_INPUT else str(request.rows)
    raise ConfigurationError(
        f"the format of {what} is not known: its name ends in none of {', '.join(ENDINGS)}",
        "give --format jsonl, csv or tsv",
    )


def _check_paths(request: Request, kind: Format) -> None:
    output = request.output
    if output is None:
        return
    if compression_of(output):
        raise ConfigurationError(
            f"--output {output}: rows are written as plain text",
            "write them to standard output, and compress that: | gzip > FILE",
        )
    if ENDINGS.get(format_of(output), kind) != kind:
        raise ConfigurationError(
            f"--output {output}: rows keep the format of the input, which is {kind}",
            f"name a file that ends in .{kind}",
        )
    with contextlib.suppress(OSError):
        if request.rows != STANDARD_INPUT and output.samefile(request.rows):
            raise ConfigurationError(
                f"--output {output}: this is the input, which would be lost", "name another file"
            )


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """The rows as bytes, unpacked if the name says that they are compressed."""
    if path == STANDARD_INPUT:
        yield sys.stdin.buffer
        return
    with ExitStack() as stack:
        stream = stack.enter_context(open_bytes(path))
        try:
            yield stream
        finally:  # here, so that an error of the block is not taken for one of the file
            stack.close()


def _reader(stream: IO[bytes], request: Request, kind: Format, config: JobConfig) -> RowReader:
    """The reader of the rows, once it has found the two columns."""
    data = dataclasses.replace(
        config.data,
        premise_column=request.premise_column or config.data.premise_column,
        hypothesis_column=request.hypothesis_column or config.data.hypothesis_column,
    )

    def find(names: Sequence[str]) -> Columns | None:
        found = find_columns(data, names, need_label=False)
        return None if found is None else Columns(found.premise, found.hypothesis)

    name = "standard input" if request.rows == STANDARD_INPUT else str(request.rows)
    asked = Columns(data.premise_column, data.hypothesis_column)
    reader = row_reader(kind, Lines(stream, name), asked, find)
    reader.open()
    return reader


def _size(path: Path) -> int:
    """Size of the input in bytes; 0 where it is not known."""
    if compression_of(path):
        return 0
    try:
        found = os.fstat(sys.stdin.fileno()) if path == STANDARD_INPUT else path.stat()
    except (OSError, ValueError):  # standard input that is no file
        return 0
    return found.st_size if stat.S_ISREG(found.st_mode) else 0


# ---------------------------------------------------------------- messages


def _progress(console: Console, size_bytes: int) -> Callable[[int, Counts], None]:
    """A function that shows how far the labelling is."""

    def show(bytes_read: int, counts: Counts) -> None:
        rows = f"{plural(counts.written, 'row')}"
        console.progress(Progress("predict", "predict", bytes_read, size_bytes, "bytes", rows))

    return show


@contextlib.contextmanager
def _told_where_it_ended(output: Output) -> Iterator[None]:
    try:
        yield
    except Stopped as error:
        raise StoppedError(
            f"stopped ({error})",
            f"{plural(output.rows, 'row')} {which(output.rows, 'is', 'are')} written to "
            f"{output.place}; the same command begins again with the first row",
        ) from error


def _say_end(console: Console, labelling: Labelling, output: Output) -> None:
    counts = labelling.counts
    now_s = time.monotonic()
    rate = counts.rate()
    left_out = f"; {plural(counts.left_out, 'row')} left out" if counts.left_out else ""
    speed = "" if rate is None else f"; {rate:,.0f} rows a second after the first chunk"
    console.line(
        f"{plural(counts.written, 'row')} written to {output.place}{left_out}; "
        f"{clock(now_s - counts.began_s)}{speed}"
    )
