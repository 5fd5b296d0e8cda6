"""What a run's trackers have been told, such as TensorBoard or MLflow."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class TrackerState:
    """tracking/<tracker>.json: written by the process that tells the tracker about the run."""

    tracker: str
    """Name of the tracker, such as "mlflow"."""
    run: str = ""
    """The tracker's own name for the run, by which a resumed job goes on with it; "" where it has
    none."""
    has_settings: bool = False
    """Whether the configuration was sent."""
    steps: dict[str, int] = field(default_factory=dict)
    """Name of each training -> its last optimizer step that was sent."""
    epochs: dict[str, int] = field(default_factory=dict)
    """Name of each training -> its last epoch whose scores were sent."""
    is_finished: bool = False
    """Whether outcome and page were sent."""
    fault: str = ""
    """Why the tracker was told no more in the latest attempt; "" where nothing failed."""
