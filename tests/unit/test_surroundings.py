"""The GPU side's environment has nothing of other launchers and all that is the user's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nlijob import surroundings
from nlijob.surroundings import gpu_side_environment, other_processes


@pytest.mark.parametrize(
    "name",
    [
        *("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "NODE_RANK", "GROUP_RANK"),
        *("ROLE_NAME", "ROLE_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID"),
        *("PET_NNODES", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK", "MPI_LOCALNRANKS"),
        *("MV2_COMM_WORLD_SIZE", "I_MPI_RANK", "SLURM_NTASKS", "HOROVOD_RANK"),
        *("ACCELERATE_USE_FSDP", "FSDP_VERSION", "DEEPSPEED_ZERO_STAGE", "MEGATRON_LM_TP_DEGREE"),
        *("XLA_FLAGS", "PJRT_DEVICE", "TPU_NAME", "NEURON_RT_NUM_CORES", "USE_TF"),
        *("PYTHONWARNINGS", "PYTHONINSPECT", "PYTHON_EXEC", "TORCH_ELASTIC_SHUTDOWN_TIMEOUT"),
    ],
)
def test_what_other_launchers_leave_behind_is_dropped(name: str) -> None:
    assert name not in gpu_side_environment({name: "1"})


@pytest.mark.parametrize(
    "name",
    [
        *("CUDA_VISIBLE_DEVICES", "NCCL_DEBUG", "HF_TOKEN", "OMP_NUM_THREADS", "LD_PRELOAD"),
        *("PYTORCH_CUDA_ALLOC_CONF", "TORCH_LOGS", "RANKING", "MY_RANK", "HTTPS_PROXY", "LANG"),
    ],
)
def test_what_is_the_users_is_kept(name: str) -> None:
    assert gpu_side_environment({name: "1"})[name] == "1"


def test_relative_folders_mean_the_same_from_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    own = {"HF_HOME": "cache", "TMPDIR": "/tmp", "XDG_CACHE_HOME": "~/c", "LD_LIBRARY_PATH": "a:"}
    made = gpu_side_environment(own)
    assert made["HF_HOME"] == str(tmp_path / "cache")
    assert (made["TMPDIR"], made["XDG_CACHE_HOME"]) == ("/tmp", "~/c")
    assert made["LD_LIBRARY_PATH"] == f"{tmp_path}/a:{tmp_path}"


@pytest.mark.parametrize("given", ["", ":", ":/x", "/x:", "/x"])
def test_no_empty_entry_puts_the_current_folder_on_the_path(given: str) -> None:
    entries = gpu_side_environment({"PYTHONPATH": given})["PYTHONPATH"].split(os.pathsep)
    assert entries[1:] == (["/x"] if "x" in given else [])
    assert os.getcwd() not in entries[1:]


def test_installed_code_is_imported_from_where_it_is_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Packages there may have the names of standard modules.
    package = Path("/usr/lib/python3/site-packages/nlijob")
    monkeypatch.setattr(surroundings, "PACKAGE", package)
    assert gpu_side_environment({})["PYTHONPATH"] == ""


def test_several_processes_of_one_host_meet_on_the_host_itself() -> None:
    assert gpu_side_environment({}, 2)["GLOO_SOCKET_IFNAME"] == "lo"
    assert gpu_side_environment({}, 2)["NCCL_SOCKET_IFNAME"] == "lo"
    assert "GLOO_SOCKET_IFNAME" not in gpu_side_environment({}, 1)


def test_the_users_choice_of_a_network_card_wins() -> None:
    assert gpu_side_environment({"NCCL_SOCKET_IFNAME": "eth1"}, 2)["NCCL_SOCKET_IFNAME"] == "eth1"


@pytest.mark.parametrize(
    ("own", "others"),
    [
        ({}, 0),
        ({"WORLD_SIZE": "1"}, 0),
        ({"WORLD_SIZE": "2", "RANK": "0"}, 1),
        ({"OMPI_COMM_WORLD_SIZE": "4"}, 3),
        ({"SLURM_NTASKS": "4"}, 0),  # an allocation, in which one process may run
        ({"SLURM_STEP_NUM_TASKS": "2"}, 1),
        ({"WORLD_SIZE": "two"}, 0),
    ],
)
def test_the_processes_of_a_launcher_are_counted(own: dict[str, str], others: int) -> None:
    assert other_processes(own) == others


def test_processes_meet_those_of_other_hosts_over_the_network_that_is_given() -> None:
    network = {"GLOO_SOCKET_IFNAME": "eth1"}
    assert gpu_side_environment({}, 2, network)["GLOO_SOCKET_IFNAME"] == "eth1"
    own = {"GLOO_SOCKET_IFNAME": "ib0"}
    assert gpu_side_environment(own, 2, network)["GLOO_SOCKET_IFNAME"] == "ib0"


def test_processes_of_one_host_meet_on_the_host_and_those_of_several_do_not() -> None:
    assert gpu_side_environment({}, 2)["GLOO_SOCKET_IFNAME"] == "lo"
    assert "GLOO_SOCKET_IFNAME" not in gpu_side_environment({}, 2, {})


@pytest.mark.parametrize(
    ("own", "given"), [({}, "0"), ({"TORCH_DEVICE_BACKEND_AUTOLOAD": "1"}, "1")]
)
def test_torch_looks_for_no_further_kinds_of_devices_unless_the_user_says_so(
    own: dict[str, str], given: str
) -> None:
    assert gpu_side_environment(own)["TORCH_DEVICE_BACKEND_AUTOLOAD"] == given
