"""Whatever order jobs, uploads, downloads and faults come in, no copy mixes two runs."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nlijob.errors import NotAvailableError
from nlijob.rundir import RunDir, write_text
from nlijob.storage import contents, resume
from nlijob.storage.contents import clear_way, is_copied
from nlijob.storage.mirror import Mirror
from nlijob.storage.place import Place
from tests.faulty_place import (
    FaultyFileSystem,
    complete,
    complete_epoch,
    complete_run,
    complete_step,
)

MACHINES = ("one", "two")
PARTS = st.one_of(
    st.text(max_size=6),
    st.sampled_from([".", "..", "", "train", "x" * 255, "x" * 256, "ü" * 128, "\0", "\udcfc"]),
)
NAMES = st.lists(PARTS, min_size=1, max_size=4).map("/".join)

examples = itertools.count()


@given(name=NAMES)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_name_that_is_copied_is_a_file_below_the_run(name: str, tmp_path: Path) -> None:
    if is_copied(name):
        root = tmp_path / str(next(examples))
        path = clear_way(root, name)
        path.parent.mkdir(parents=True)
        path.write_bytes(b"x")
        assert path.resolve().is_relative_to(root.resolve())
        assert contents.stamps(root).keys() == {name}


# ---------------------------------------------------------------- two machines and one place

WORK = st.tuples(
    st.sampled_from("ba"),
    st.sampled_from(["subset", "report", "epoch", "step", "write on", "begin anew"]),
)
"""A step of a job, with the inputs a or b."""
FAULTS = st.sampled_from([1, 2, 3, 4, 5, 7, 9, 99])
ROUNDS = st.tuples(
    st.sampled_from(MACHINES), st.lists(WORK, max_size=3), st.sampled_from("uuf"), FAULTS
)
"""Work on a machine; then an upload or a fetch, which fails after so many operations."""


class Machine:
    """A run's folder on one machine, and the upload of the attempt that works there."""

    def __init__(self, root: Path, place: Place) -> None:
        self.run = RunDir(root)
        self._place = place
        self._step = 0
        self.upload = Mirror(self.run, place, lambda _: None)

    def work(self, inputs: str, what: str) -> None:
        """Do a part of a job whose earlier parts may be missing or of other inputs."""
        run = self.run
        if what == "subset":
            complete(run, "subset", inputs, "subset/test.jsonl")
        elif what == "step":
            self._step += 1
            complete_step(run, 1, self._step, inputs)
        elif what == "epoch":
            complete_epoch(run, run.count_marked_epochs() + 1, inputs)
        elif what == "report":
            complete(run, "report", inputs, "report.html")
        elif what == "begin anew":
            for stage in run.marked():
                run.unmark(stage)
        else:
            run.unmark("report")
            write_text(run.report, "half of a report")

    def begin(self) -> None:
        """Begin another attempt, which asks the place what it holds."""
        self.upload = Mirror(self.run, self._place, lambda _: None)


def fail_after(operations: int) -> Callable[[str, str], None]:
    left = itertools.count(operations, -1)

    def count(operation: str, path: str) -> None:
        if next(left) <= 0:
            raise OSError("gone")

    return count


def mixtures(files: Mapping[str, str]) -> dict[str, set[str]]:
    """Valid markers whose files are of other inputs than the marker -> all of these inputs.

    A file of the same size and another hash is not taken by those who fetch it.
    """
    hashes = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in files.items()}
    markers = {n: text.encode() for n, text in files.items() if n.startswith("markers/")}
    found = {}
    for name, marker in markers.items():
        listed = contents.stamps_listed(marker)
        if all(hashes.get(file) == stamp.sha256 for file, stamp in listed.items()):
            inputs = {files[file].split()[-1] for file in listed}
            found[name] = inputs | {json.loads(marker)["inputs"]["stamp"]}
    return {name: inputs for name, inputs in found.items() if len(inputs) > 1}


def files_of(run: RunDir) -> dict[str, str]:
    return {name: (run.root / name).read_text("utf-8") for name in contents.stamps(run.root)}


@given(rounds=st.lists(ROUNDS, min_size=3, max_size=12))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
def test_no_order_of_work_uploads_downloads_and_faults_mixes_two_runs(
    rounds: list[tuple[str, list[tuple[str, str]], str, int]],
    tmp_path: Path,
    place: Place,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resume, "ATTEMPTS", 1)
    FaultyFileSystem.reset()
    base = tmp_path / str(next(examples))
    machines = {name: Machine(base / name / "job", place) for name in MACHINES}
    for name, inputs in zip(MACHINES, "ab", strict=True):
        complete_run(machines[name].run, inputs)
    machines["one"].upload._try_round()
    for name, works, copy, operations in rounds:
        machine = machines[name]
        for work in works:
            machine.work(*work)
        FaultyFileSystem.before = staticmethod(fail_after(operations))
        if copy == "u":
            machine.upload._try_round()
        else:
            fetch(machine, place)
            machine.begin()
        FaultyFileSystem.reset_faults()
        assert mixtures(FaultyFileSystem.files()) == {}
        assert mixtures(files_of(machine.run)) == {}


def fetch(machine: Machine, place: Place) -> None:
    with contextlib.suppress(NotAvailableError):
        resume.resume(machine.run, place, lambda _: None)
