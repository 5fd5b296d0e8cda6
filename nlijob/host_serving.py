"""The command on another host than host 0: it has its GPUs work on the job that host 0 does.

It has no run folder and writes no report. It finds the model on this host, and starts the GPU side
in a temporary folder; configuration and rows come from host 0.
"""

from __future__ import annotations

import dataclasses
import json
import socket
from collections.abc import Callable
from typing import Any

from nlijob.accelerate_file import fsdp_settings
from nlijob.config import JobConfig
from nlijob.console import Console
from nlijob.hardware import gpu_count
from nlijob.host_link import FurtherLink, LeadLink, joined
from nlijob.host_peer import Hello
from nlijob.hosts import Hosts
from nlijob.hub import Hub, model_files
from nlijob.launch import GpuSide
from nlijob.pipeline import model_stamp
from nlijob.processes import processes_of
from nlijob.records.job import RunRecord
from nlijob.rundir import write_record
from nlijob.use.workspace import workspace

OWN_PLACES = ("model.name", "data.dataset")
"""Keys that may differ between the hosts, as they may be local paths. The model's files are
compared by their contents, and the data are read on host 0 alone."""


def serve(hosts: Hosts, record: RunRecord, hub: Hub, console: Console) -> None:
    """Work on host 0's job to its end. Raises the error with which it ended.

    `record`: the job's configuration, as this host was given it.
    """
    config = record.config
    link = FurtherLink(hosts, hello(hosts, config), console.line)
    with joined(link):
        if not link.is_needed():
            console.line("Host 0 has found all complete")
            return
        with workspace() as place:
            run, processes = place.run, processes_of(config)
            write_record(run.config, record)
            device = config.model.device
            fsdp = fsdp_settings(config.machine)
            trusts_code = config.model.trust_remote_code
            with GpuSide(
                run, device, console.detail, "job", processes, link, fsdp, trusts_code
            ) as gpu_side:
                gpu_side.start()
                folder = hub.model_folder(config.model)
                stamp = model_stamp(folder, model_files(config.model))
                place.give(gpu_side, folder, stamp)
                gpu_side.attend()
                console.line("The work of this host is done; waiting for the end of host 0")
                link.wait_for_end()


def lead(hosts: Hosts, config: JobConfig, say: Callable[[str], None]) -> LeadLink:
    """The link of host 0, not yet connected."""
    return LeadLink(hosts, hello(hosts, config), say)


def hello(hosts: Hosts, config: JobConfig) -> Hello:
    """What this host says of itself. Raises ConfigurationError if it lacks GPUs that are wanted."""
    return Hello(
        hosts.rank, hosts.count, socket.gethostname(), processes_of(config), settings(config)
    )


def settings(config: JobConfig) -> dict[str, Any]:
    """The settings that must be the same on all hosts, "section.key" -> value as JSON has it."""
    tables: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config)))
    del tables["machine"]  # the number of processes is compared instead
    flat: dict[str, Any] = {"machine.accelerate_config": fsdp_settings(config.machine)}
    for name, value in tables.items():
        if isinstance(value, dict):
            flat |= {f"{name}.{key}": one for key, one in value.items()}
        else:
            flat[name] = value
    return {key: value for key, value in flat.items() if key not in OWN_PLACES}


def with_all_gpus(config: JobConfig) -> JobConfig:
    """The configuration in which "auto" means all GPUs: who asks for several hosts wants them."""
    if config.machine.gpus != "auto" or config.model.device == "cpu":
        return config
    gpus = dataclasses.replace(config.machine, gpus=gpu_count())
    return dataclasses.replace(config, machine=gpus)
