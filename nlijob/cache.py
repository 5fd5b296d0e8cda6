"""What runs share on a machine: a folder of this project in the hub client's cache (HF_HOME).

It holds copies of quantised models, a folder for each model, and folders whose names begin with a
dot: compiled kernels and modules.
"""

from __future__ import annotations

from pathlib import Path


def cache_folder() -> Path:
    """The folder, which may not exist yet."""
    from huggingface_hub import constants  # late: commands that read no model do without the client

    return Path(constants.HF_ASSETS_CACHE) / "nlijob"
