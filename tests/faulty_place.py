"""A remote folder whose errors a test chooses, and small runs to copy there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import fsspec
from fsspec.implementations.memory import MemoryFileSystem

from nlijob.rundir import RunDir, epoch_marker, step_marker, write_text
from tests.markers import made_from

URL = "faulty://bucket/prefix"


class FaultyFileSystem(MemoryFileSystem):  # type: ignore[misc]  # fsspec has no types
    """A file system in memory that first calls `before(operation, path)`; it may raise or wait."""

    protocol = "faulty"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    cachable = False
    before: ClassVar[Callable[[str, str], object]]
    calls: ClassVar[list[tuple[str, str]]]

    @classmethod
    def reset(cls) -> None:
        """Delete all files and errors."""
        cls.store.clear()
        cls.pseudo_dirs[:] = [""]
        cls.calls = []
        cls.reset_faults()

    @classmethod
    def reset_faults(cls) -> None:
        """Keep the files, and raise no errors from now on."""
        cls.before = staticmethod(lambda operation, path: None)

    @classmethod
    def files(cls) -> dict[str, str]:
        """Name in the run "job" -> content."""
        root = "/bucket/prefix/job/"
        return {p.removeprefix(root): f.getvalue().decode() for p, f in cls.store.items()}

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        stripped: str = MemoryFileSystem._strip_protocol(path.replace("faulty://", "memory://", 1))
        return stripped

    def _ask(self, operation: str, path: str) -> None:
        type(self).before(operation, path)
        type(self).calls.append((operation, path.rpartition("/job/")[2]))

    def find(self, path: str, **options: Any) -> Any:
        self._ask("list", path)
        return super().find(path, **options)

    def cat_file(self, path: str, **options: Any) -> Any:
        self._ask("read", path)
        return super().cat_file(path, **options)

    def get_file(self, rpath: str, lpath: str, **options: Any) -> None:
        self._ask("fetch", rpath)
        super().get_file(rpath, lpath, **options)

    def put_file(self, lpath: str, rpath: str, **options: Any) -> None:
        options["callback"].relative_update(1)  # an error may follow after some bytes
        self._ask("put", rpath)
        super().put_file(lpath, rpath, **options)

    def pipe_file(self, path: str, value: bytes, **options: Any) -> None:
        self._ask("put", path)
        super().pipe_file(path, value, **options)

    def rm_file(self, path: str) -> None:
        self._ask("remove", path)
        super().rm_file(path)


fsspec.register_implementation("faulty", FaultyFileSystem, clobber=True)


def complete(
    run: RunDir, stage: str, inputs: str, *names: str, to_continue: Sequence[str] = ()
) -> None:
    """Do a stage: unmark it, write these files, mark it. The files name its made-up inputs."""
    run.unmark(stage)
    for name in names:
        write_text(run.root / name, f"{name} of {inputs}")
    run.mark_complete(
        stage,
        made_from(inputs),
        [run.root / name for name in names],
        [run.root / name for name in to_continue],
    )


def complete_epoch(run: RunDir, epoch: int, inputs: str) -> None:
    """Do an epoch as the GPU side does, replacing the training state of the epoch before."""
    run.unmark(epoch_marker(epoch))
    write_text(run.training_state(epoch), f"state {epoch} of {inputs}")
    state = run.name(run.training_state(epoch))
    complete(run, epoch_marker(epoch), inputs, f"train/epoch-{epoch}/adapter", to_continue=[state])
    run.training_state(epoch - 1).unlink(missing_ok=True)


def complete_step(run: RunDir, epoch: int, step: int, inputs: str) -> None:
    """Write a checkpoint within an epoch as the GPU side does, replacing the one before."""
    earlier = run.marked_steps()
    complete(run, step_marker(epoch, step), inputs, run.name(run.step_state(epoch, step)))
    for place in earlier:
        run.unmark(step_marker(*place))
        run.step_state(*place).unlink()


def complete_run(run: RunDir, inputs: str, epochs: int = 2) -> None:
    """Do a small run. Names of inputs of equal length give files of the same names and sizes."""
    write_text(run.config, f"config of {inputs}")
    complete(run, "subset", inputs, "subset/test.jsonl")
    for epoch in range(1, epochs + 1):
        complete_epoch(run, epoch, inputs)
    complete(run, "report", inputs, "report.html")
