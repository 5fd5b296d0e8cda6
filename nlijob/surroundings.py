"""What the GPU side finds around it: environment variables and accelerate's configuration.

Other launchers, schedulers and `accelerate config` leave settings behind that would make a single
process wait for others, or compute in another way. The GPU side gets none of them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent

LEFT_BEHIND = re.compile(
    # torchrun and its like: which process of how many this is
    r"(LOCAL_|NODE_|GROUP_|ROLE_|CROSS_)?(RANK|WORLD_SIZE)|ROLE_NAME|MASTER_(ADDR|PORT)"
    r"|(TORCHELASTIC|TORCH_ELASTIC|PET|TORCHX)_.*|PYTHON_EXEC"
    # MPI and the schedulers that start its processes
    r"|(OMPI|OPAL|ORTE|PMI|PMI2|PMIX|PRTE|MPI|MPIR|MV2|I_MPI|HYDI|HYDRA|MPIEXEC|JSM|PALS|FLUX)_.*"
    r"|(SLURM|SLURMD|HOROVOD)_.*"
    # accelerate and what it configures
    r"|(ACCELERATE|FSDP|DEEPSPEED|MEGATRON_LM|PARALLELISM_CONFIG|FP8)_.*"
    # other devices
    r"|(XLA|XRT|PJRT|TPU|NEURON|NEURON_RT)_.*|USE_(TORCH|TF|FLAX|JAX)"
    # warnings made errors would end the imports of libraries
    r"|PYTHONWARNINGS|PYTHONINSPECT|PYTHONSTARTUP"
)
"""Names of the variables that the GPU side does not get."""
FOLDERS = re.compile(
    r"HF_HOME|HF_.*_CACHE|HUGGINGFACE_HUB_CACHE|TRANSFORMERS_CACHE|XDG_.*_HOME|HOME|TMPDIR"
    r"|TORCH_HOME|TORCH_EXTENSIONS_DIR|TORCHINDUCTOR_CACHE_DIR|TRITON_CACHE_DIR|CUDA_CACHE_PATH"
    r"|MPLCONFIGDIR|CUDA_HOME|CUDA_PATH|HF_TOKEN_PATH"
)
"""Names of variables that hold a path, which may be relative to the user's working folder."""
PATH_LISTS = ("PYTHONPATH", "LD_LIBRARY_PATH", "PATH")
ALL_LIBRARIES = "ALL_LIBRARIES_OF_NLIJOB"
"""Environment variable that is set where no library may be hidden from others while the GPU side
starts: code that comes with a model may need any."""
ON_LOOPBACK = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
"""Has the processes of one host meet on the host itself. By default gloo takes the address of the
host's name and NCCL that of a network card, where there may be a firewall or no network at all. A
user's own choice wins."""


def gpu_side_environment(
    own: Mapping[str, str],
    processes: int = 1,
    network: Mapping[str, str] | None = None,
    needs_all_libraries: bool = False,
) -> dict[str, str]:
    """Environment of the GPU side, which reads local folders only, made from this process's own.

    `processes`: how many the launcher starts on this host. `network`: variables by which they meet
    those of other hosts, where there are some. `needs_all_libraries`: whether it may hide none from
    the libraries that it imports (`nlijob.gpu.imports`).
    """
    if network is None:
        network = ON_LOOPBACK if processes > 1 else {}
    kept = {name: value for name, value in own.items() if not LEFT_BEHIND.fullmatch(name)}
    for name, value in kept.items():
        if FOLDERS.fullmatch(name) and value and not value.startswith("~"):
            kept[name] = os.path.abspath(value)
    for name in PATH_LISTS:
        if name in kept:
            kept[name] = _absolute(kept[name], drop_empty=name == "PYTHONPATH")
    return {
        **network,
        **kept,
        **({ALL_LIBRARIES: "1"} if needs_all_libraries else {}),
        "PYTHONPATH": os.pathsep.join(filter(None, [_code_folder(), kept.get("PYTHONPATH")])),
        "PYTHONSAFEPATH": "1",  # files in the current folder must not shadow installed modules
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "true",
        "PYTHONUNBUFFERED": "1",
        # torch would look in all installed packages for further kinds of devices, at each import
        "TORCH_DEVICE_BACKEND_AUTOLOAD": own.get("TORCH_DEVICE_BACKEND_AUTOLOAD", "0"),
        # By default, waiting OpenMP threads spin. With other work on the same cores that makes
        # training forty times slower (demo, two cores: 2 examples/s instead of 81); on an idle
        # machine there is no difference.
        "OMP_WAIT_POLICY": own.get("OMP_WAIT_POLICY", "PASSIVE"),
    }


def accelerate_config(
    on_cpu: bool, processes: int = 1, fsdp: Mapping[str, object] | None = None
) -> dict[str, object]:
    """accelerate's configuration for so many processes on one machine.

    `fsdp`: settings by which weights are divided between the processes (`nlijob.accelerate_file`).
    Without one, `accelerate launch` would read the one that `accelerate config` left in the user's
    home, which may ask for several GPUs or for a cloud service.
    """
    return {
        "compute_environment": "LOCAL_MACHINE",
        "distributed_type": "FSDP" if fsdp else "NO" if processes == 1 else "MULTI_GPU",
        "debug": False,
        "mixed_precision": "no",
        "num_machines": 1,
        "num_processes": processes,
        "use_cpu": on_cpu,
        **({"fsdp_config": dict(fsdp)} if fsdp else {}),
    }


def other_processes(own: Mapping[str, str]) -> int:
    """How many other processes the launcher around this process has started with it; 0 if none."""
    for name in ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"):
        size = own.get(name, "")
        if size.isascii() and size.isdecimal() and int(size) > 1:
            return int(size) - 1
    return 0


def _absolute(paths: str, drop_empty: bool) -> str:
    """A list of paths that means the same in another working folder. An empty one is the folder."""
    parts = paths.split(os.pathsep)
    kept = [part for part in parts if part or not drop_empty]
    return os.pathsep.join(os.path.abspath(part) for part in kept)


def _code_folder() -> str | None:
    """The folder to import this very package from, or None where it is installed."""
    folder = PACKAGE.parent
    return None if folder.name in ("site-packages", "dist-packages") else str(folder)
