"""Which host this is: the options, and the launcher's variables where the user asks for them."""

from __future__ import annotations

import pytest

from nlijob.errors import ConfigurationError, ExitCode
from nlijob.hosts import Hosts, hosts_of

TORCHRUN = {
    "GROUP_WORLD_SIZE": "2",
    "GROUP_RANK": "1",
    "WORLD_SIZE": "2",
    "RANK": "1",
    "LOCAL_WORLD_SIZE": "1",
    "MASTER_ADDR": "node0",
    "MASTER_PORT": "29400",
}


def faults(*given: str | None, environment: dict[str, str] | None = None) -> str:
    count, rank, rendezvous = given
    with pytest.raises(ConfigurationError) as caught:
        hosts_of(count, rank, rendezvous, None, environment or {})
    assert caught.value.exit_code == ExitCode.CONFIGURATION
    return caught.value.message


def test_the_options_say_which_host_this_is() -> None:
    assert hosts_of("2", "1", "node0:29400", 60, {}) == Hosts(2, 1, "node0", 29400, 60)


@pytest.mark.parametrize("rendezvous", ["[fd00::1]:4000", "[fd00::1]"])
def test_an_address_of_ipv6_is_put_in_brackets(rendezvous: str) -> None:
    hosts = hosts_of("2", "0", rendezvous, None, {})
    assert hosts is not None
    assert hosts.address == "fd00::1"
    assert hosts.endpoint.startswith("[fd00::1]:")


def test_the_port_is_that_of_torchrun_where_none_is_given() -> None:
    hosts = hosts_of("2", "0", "node0", None, {})
    assert hosts is not None
    assert hosts.endpoint == "node0:29500"


@pytest.mark.parametrize("rank", [None, "0"])
def test_one_host_needs_no_rendezvous(rank: str | None) -> None:
    assert hosts_of("1", rank, None, None, {}) is None


def test_variables_of_another_launcher_are_not_taken_for_ours() -> None:
    assert hosts_of(None, None, None, None, TORCHRUN) is None


def test_all_faults_are_named_at_once() -> None:
    message = faults("2", "2", "node0:99999")
    assert "--host-rank 2: with --hosts 2 it is one of 0 to 1" in message
    assert "--rendezvous 'node0:99999': the port is one of 1 to 65535" in message


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        (("2", None, None), "--host-rank is missing"),
        (("2", None, None), "--rendezvous is missing"),
        (("two", "0", "a:1"), "--hosts 'two': not a whole number"),
        (("0", "0", "a:1"), "--hosts 0: at least 1"),
        (("2", "0", "a:b"), "--rendezvous 'a:b': not HOST:PORT"),
        (("2", "0", "fd00::1:80"), "not HOST:PORT"),
        ((None, "0", None), "--host-rank: give --hosts N too"),
        ((None, None, "a:1"), "--rendezvous: give --hosts N too"),
    ],
)
def test_a_fault_is_named(given: tuple[str | None, ...], fault: str) -> None:
    assert fault in faults(*given)


def test_torchruns_variables_are_used_where_the_user_says_so() -> None:
    # torchrun itself listens at its port
    assert hosts_of("env", None, None, None, TORCHRUN) == Hosts(2, 1, "node0", 29401)


@pytest.mark.parametrize("prefix", ["", "PET_"])
def test_variables_that_schedulers_set_are_used(prefix: str) -> None:
    count, rank = ("PET_NNODES", "PET_NODE_RANK") if prefix else ("WORLD_SIZE", "RANK")
    variables = {count: "3", rank: "0", f"{prefix}MASTER_ADDR": "fd00::1"}
    variables[f"{prefix}MASTER_PORT"] = "23456"
    assert hosts_of("env", None, None, None, variables) == Hosts(3, 0, "fd00::1", 23456)


def test_an_option_wins_over_the_launchers_variable() -> None:
    assert hosts_of("env", "0", "other:1", None, TORCHRUN) == Hosts(2, 0, "other", 1)


@pytest.mark.parametrize(
    ("variables", "fault"),
    [
        ({}, "none of the launchers' variables is set"),
        ({**TORCHRUN, "LOCAL_WORLD_SIZE": "4"}, "has started 4 processes on this host"),
        ({"WORLD_SIZE": "2", "RANK": "0"}, "WORLD_SIZE is set, and MASTER_ADDR is not"),
        ({**TORCHRUN, "MASTER_PORT": "x"}, "MASTER_PORT: 'x' is not a port"),
    ],
)
def test_a_fault_of_the_launchers_variables_is_named(variables: dict[str, str], fault: str) -> None:
    assert fault in faults("env", None, None, environment=variables)
