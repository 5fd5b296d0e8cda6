"""Each tracker as accelerate has it, with what they do not have in common."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from nlijob.config import TrackerName
from nlijob.rundir import RunDir
from nlijob.tracking.series import Point

PROJECT = "nlijob"
"""Project or experiment that runs are put into, unless the tracker's own variable names another."""
MOST_METRICS = 1000
"""Most figures that MLflow takes in one request."""
Setting = bool | int | float | str | None


class Tracker(Protocol):
    """Tells one tracker about one run. Its methods raise whatever the tracker's library raises."""

    @property
    def run(self) -> str:
        """The tracker's own name for the run; "" where it has none."""

    def settings(self, values: Mapping[str, Setting]) -> None:
        """Send the configuration."""

    def log(self, points: Sequence[Point]) -> None:
        """Send figures that belong to optimizer steps."""

    def files(self, files: list[Path]) -> None:
        """Send files, or tell where they are."""

    def finish(self, succeeded: bool) -> None:
        """End the run, which is complete or may go on later."""


class _Common:
    """What all of accelerate's trackers do alike."""

    def __init__(self, tracker: Any) -> None:
        self._tracker = tracker
        tracker.start()

    @property
    def run(self) -> str:
        return ""

    def settings(self, values: Mapping[str, Setting]) -> None:
        self._tracker.store_init_configuration(dict(values))

    def log(self, points: Sequence[Point]) -> None:
        for point in points:
            self._tracker.log(point.values, step=point.step)

    def finish(self, succeeded: bool) -> None:
        self._tracker.finish()


class TensorBoard(_Common):
    """Event files in the run's folder. They hold no pages, so the summary stands for the page."""

    def __init__(self, run: RunDir, _: str) -> None:
        from accelerate.tracking import TensorBoardTracker

        super().__init__(TensorBoardTracker("tensorboard", run.tracking))

    def files(self, files: list[Path]) -> None:
        """Show the summary, which is Markdown, and where the files are."""
        texts = [file.read_text(encoding="utf-8") for file in files if file.suffix == ".md"]
        places = [f"- `{file.absolute()}`" for file in files]
        self._tracker.tracker.add_text("report", "\n\n".join([*texts, "\n".join(places)]))


class MLflow(_Common):
    """A run of an experiment, in the run's folder unless MLFLOW_TRACKING_URI names a place."""

    def __init__(self, run: RunDir, known: str) -> None:
        from accelerate.tracking import MLflowTracker

        artifacts = None
        if not os.environ.get("MLFLOW_TRACKING_URI"):
            os.environ["MLFLOW_TRACKING_URI"] = _local_store(run.tracking)
            artifacts = (run.tracking / "mlflow").absolute().as_uri()
        name = run.root.absolute().name
        super().__init__(
            MLflowTracker(PROJECT, logging_dir=artifacts, run_id=known or None, run_name=name)
        )

    @property
    def run(self) -> str:
        return str(self._tracker.tracker.info.run_id)

    def log(self, points: Sequence[Point]) -> None:
        """Send many figures at once: accelerate's class makes a request for each step."""
        from mlflow import MlflowClient
        from mlflow.entities import Metric

        now_ms = time.time_ns() // 1_000_000
        metrics = [
            Metric(name, value, now_ms, point.step)
            for point in points
            for name, value in point.values.items()
        ]
        for first in range(0, len(metrics), MOST_METRICS):
            MlflowClient().log_batch(self.run, metrics=metrics[first : first + MOST_METRICS])

    def files(self, files: list[Path]) -> None:
        """Upload the files as artifacts."""
        for file in files:
            self._tracker.log_artifact(str(file))

    def finish(self, succeeded: bool) -> None:
        import mlflow

        mlflow.end_run("FINISHED" if succeeded else "KILLED")


class WandB(_Common):
    """A run of a project, whose figures have the optimizer step as their axis.

    It takes no step that is lower than the one before, and trainings may be side by side. So each
    step is a figure itself.
    """

    def __init__(self, run: RunDir, known: str) -> None:
        from accelerate.tracking import WandBTracker

        run.tracking.mkdir(parents=True, exist_ok=True)
        super().__init__(
            WandBTracker(
                os.environ.get("WANDB_PROJECT", PROJECT),
                id=known or uuid.uuid4().hex,
                name=run.root.absolute().name,
                resume="allow",
                dir=str(run.tracking),
            )
        )
        self._tracker.tracker.define_metric("step")
        self._tracker.tracker.define_metric("*", step_metric="step")

    @property
    def run(self) -> str:
        return str(self._tracker.tracker.id)

    def log(self, points: Sequence[Point]) -> None:
        for point in points:
            self._tracker.log({**point.values, "step": point.step})

    def files(self, files: list[Path]) -> None:
        """Upload the files as one artifact."""
        import wandb

        artifact = wandb.Artifact(f"report-{self.run}", type="report")
        for file in files:
            artifact.add_file(str(file))
        self._tracker.tracker.log_artifact(artifact)

    def finish(self, succeeded: bool) -> None:
        self._tracker.tracker.finish(exit_code=0 if succeeded else 1)


class Trackio(_Common):
    """A run of a project, in trackio's own folder or on a hub's space."""

    def __init__(self, run: RunDir, known: str) -> None:
        from accelerate.tracking import TrackioTracker

        project = os.environ.get("TRACKIO_PROJECT", PROJECT)
        name = known or run.root.absolute().name
        own = {"auto_log_gpu": False, "auto_log_cpu": False}  # the job samples the hardware itself
        super().__init__(
            TrackioTracker(project, name=name, resume="allow" if known else "never", **own)
        )

    @property
    def run(self) -> str:
        return str(self._tracker.tracker.name)

    def files(self, files: list[Path]) -> None:
        """Upload each file as an artifact."""
        for file in files:
            self._tracker.tracker.log_artifact(file, name=file.stem, type="report")


OPENERS: dict[TrackerName, Callable[[RunDir, str], Tracker]] = {
    "tensorboard": TensorBoard,
    "mlflow": MLflow,
    "wandb": WandB,
    "trackio": Trackio,
}
"""Name -> what opens the tracker for a run, which it may know already by a name of its own."""


def _local_store(folder: Path) -> str:
    """Where MLflow keeps runs in a folder: its database or, without SQLAlchemy, files."""
    folder.mkdir(parents=True, exist_ok=True)
    if find_spec("sqlalchemy") is not None:
        return f"sqlite:///{(folder / 'mlflow.db').absolute()}"
    os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
    return (folder / "mlruns").absolute().as_uri()
