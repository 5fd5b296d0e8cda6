"""Several hosts: which of how many this one is, and where they meet, from options and variables.

A host is one machine, or one container, on which the command is started once. Its processes of the
GPU side form one group with those of the other hosts.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from nlijob.errors import ConfigurationError

FROM_VARIABLES = "env"
"""Value of --hosts by which the launcher's variables are used."""
DEFAULT_PORT = 29500
"""Port of the rendezvous where none is given, as torchrun has it."""
DEFAULT_LIMIT_S = 900.0
"""Longest time that the hosts wait for each other at the start, as torchrun has it."""
LAST_PORT = 65535


@dataclass(frozen=True)
class Hosts:
    """The hosts of a job, as one of them knows them."""

    count: int
    """Number of hosts, at least 2."""
    rank: int
    """Number of this host, from 0. Host 0 does the job and has the run's folder."""
    address: str
    """Name or address of host 0 for the others, without brackets."""
    port: int
    """Port of host 0 for the others."""
    limit_s: float = DEFAULT_LIMIT_S
    """Longest time that the hosts wait for each other at the start, in seconds."""

    @property
    def is_lead(self) -> bool:
        """Whether this is the host that does the job and has the run's folder."""
        return self.rank == 0

    def __str__(self) -> str:
        """This host in words."""
        return f"host {self.rank} of {self.count}"

    @property
    def endpoint(self) -> str:
        """HOST:PORT of host 0."""
        return f"{bracketed(self.address)}:{self.port}"


class Variables(NamedTuple):
    """Names of the variables in which a launcher says which host this is."""

    hosts: str
    rank: str
    address: str
    port: str


LAUNCHERS = (
    # torchrun has started this process; it listens at the port itself
    Variables("GROUP_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT"),
    # options of torchrun as variables, which schedulers set
    Variables("PET_NNODES", "PET_NODE_RANK", "PET_MASTER_ADDR", "PET_MASTER_PORT"),
    # one process a host, as operators on Kubernetes and scripts for Slurm set them
    Variables("WORLD_SIZE", "RANK", "MASTER_ADDR", "MASTER_PORT"),
)
"""Known sets of variables. The first one whose number of hosts is set is used."""
PROCESSES = "LOCAL_WORLD_SIZE"
"""Variable in which torchrun says how many processes it has started on this host."""


def hosts_of(
    count: str | None,
    rank: str | None,
    rendezvous: str | None,
    limit_s: float | None,
    environment: Mapping[str, str],
) -> Hosts | None:
    """The hosts by the options of `run`, each None where it was not given; None for one host.

    With --hosts env, what no option gives is read from the launcher's variables; without it these
    are not looked at. Raises ConfigurationError that names every fault.
    """
    faults: list[str] = []
    given = {"--hosts": count, "--host-rank": rank, "--rendezvous": rendezvous}
    if count == FROM_VARIABLES:
        given = _from_variables(given, environment, faults)
    elif count is None:
        beside = {**given, "--rendezvous-timeout": None if limit_s is None else str(limit_s)}
        faults += [
            f"{name}: give --hosts N too" for name, value in beside.items() if value is not None
        ]
    hosts = None if faults or given["--hosts"] is None else _checked(given, faults)
    if faults:
        raise ConfigurationError.from_faults(
            faults,
            "on each of N hosts give --hosts N --host-rank I --rendezvous HOST:PORT, where I is 0 "
            "to N - 1, and HOST is host 0",
        )
    if hosts is None or hosts.count == 1:
        return None
    return hosts if limit_s is None else dataclasses.replace(hosts, limit_s=limit_s)


def bracketed(address: str) -> str:
    """An address as it is written before a port: one of IPv6 is put in brackets."""
    return f"[{address}]" if ":" in address else address


def _from_variables(
    given: dict[str, str | None], environment: Mapping[str, str], faults: list[str]
) -> dict[str, str | None]:
    """The options, completed by the launcher's variables. Adds what is wrong to `faults`."""
    names = next((known for known in LAUNCHERS if environment.get(known.hosts)), None)
    if names is None:
        known = ", ".join(known.hosts for known in LAUNCHERS)
        faults.append(f"--hosts env: none of the launchers' variables is set ({known})")
        return given
    if (processes := environment.get(PROCESSES, "1")) != "1":
        faults.append(
            f"--hosts env: the launcher has started {processes} processes on this host "
            f"({PROCESSES}); have it start one, which uses all GPUs"
        )
    found = {
        "--hosts": environment[names.hosts],
        "--host-rank": given["--host-rank"] or environment.get(names.rank),
        "--rendezvous": given["--rendezvous"] or _endpoint(names, environment, faults),
    }
    missing = [
        name
        for name, option in ((names.rank, "--host-rank"), (names.address, "--rendezvous"))
        if not found[option]
    ]
    faults += [f"--hosts env: {names.hosts} is set, and {name} is not" for name in missing]
    return found


def _endpoint(names: Variables, environment: Mapping[str, str], faults: list[str]) -> str | None:
    address, port = environment.get(names.address), environment.get(names.port)
    if not address:
        return None
    if not port:
        return bracketed(address)
    if not port.isascii() or not port.isdecimal():
        faults.append(f"{names.port}: {port!r} is not a port")
        return bracketed(address)
    # torchrun itself listens at its port as long as this process runs
    taken = names is LAUNCHERS[0]
    return f"{bracketed(address)}:{int(port) + taken}"


def _checked(given: Mapping[str, str | None], faults: list[str]) -> Hosts | None:
    """The hosts; adds every fault to `faults` and returns None where there are some."""
    count = _whole_number("--hosts", given["--hosts"], faults)
    if count is not None and count < 1:
        faults.append(f"--hosts {count}: at least 1")
    if count == 1 and given["--rendezvous"] is None and given["--host-rank"] in (None, "0"):
        return None
    rank = _whole_number("--host-rank", given["--host-rank"], faults)
    if rank is not None and count is not None and count > 0 and not 0 <= rank < count:
        faults.append(f"--host-rank {rank}: with --hosts {count} it is one of 0 to {count - 1}")
    place = _place(given["--rendezvous"], faults)
    if faults or count is None or rank is None or place is None:
        return None
    return Hosts(count, rank, *place)


def _whole_number(option: str, text: str | None, faults: list[str]) -> int | None:
    if text is None:
        faults.append(f"{option} is missing")
        return None
    if not re.fullmatch(r"-?[0-9]{1,6}", text):
        faults.append(f"{option} {text!r}: not a whole number")
        return None
    return int(text)


def _place(text: str | None, faults: list[str]) -> tuple[str, int] | None:
    """Address and port of HOST:PORT, HOST, or [ADDRESS]:PORT."""
    if text is None:
        faults.append("--rendezvous is missing")
        return None
    match = re.fullmatch(r"(?:\[([0-9a-fA-F:.%\w]+)\]|([^\s:/\[\]]+))(?::([0-9]{1,6}))?", text)
    if match is None:
        faults.append(f"--rendezvous {text!r}: not HOST:PORT")
        return None
    port = int(match[3]) if match[3] else DEFAULT_PORT
    if not 1 <= port <= LAST_PORT:
        faults.append(f"--rendezvous {text!r}: the port is one of 1 to {LAST_PORT}")
        return None
    return match[1] or match[2], port
