"""The trackers and the packages that they need."""

from __future__ import annotations

import importlib.util

from nlijob.config import ReportConfig
from nlijob.errors import ConfigurationError

TITLES: dict[str, str] = {
    "tensorboard": "TensorBoard",
    "mlflow": "MLflow",
    "wandb": "Weights & Biases",
    "trackio": "Trackio",
}
"""Name of a tracker, and of its package and of the extra that installs it -> its own spelling."""


def check_trackers(report: ReportConfig) -> None:
    """Raise ConfigurationError where the package of a tracker that is asked for is missing."""
    faults = [
        f"report.track: {TITLES[name]} is asked for, and the package {name} is not installed"
        for name in report.track
        if not _is_installed(name)
    ]
    if faults:
        extras = ",".join(name for name in report.track if not _is_installed(name))
        raise ConfigurationError.from_faults(faults, f"pip install 'nlijob[{extras}]'")


def _is_installed(package: str) -> bool:
    spec = importlib.util.find_spec(package)
    # a tracker leaves a folder of the package's name behind, which looks like one without a file
    return spec is not None and spec.origin is not None
