"""The commands of several hosts meet, begin together, and end with the same exit code."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from nlijob import __version__, host_link, host_peer
from nlijob.errors import ConfigurationError, ExitCode, HardwareError, JobError
from nlijob.host_link import FurtherLink, HostLink, LeadLink, joined
from nlijob.host_peer import Hello
from nlijob.hosts import Hosts
from nlijob.stopping import Stopped

LONG_S = 30.0
"""A limit that only a hanging test reaches."""


@pytest.fixture(autouse=True)
def short_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BEAT_S", "RETRY_S", "POLL_S"):
        monkeypatch.setattr(host_link, name, 0.01)
    monkeypatch.setattr(host_link, "CAUSE_S", LONG_S)


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        number: int = found.getsockname()[1]
        return number


class Host:
    """A host whose command runs in a thread."""

    def __init__(self, link: HostLink, work: Callable[[HostLink], object]) -> None:
        self.link = link
        self.error: BaseException | None = None
        self._work = work
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            with joined(self.link):
                self._work(self.link)
        except (Exception, Stopped) as error:
            self.error = error

    def end(self) -> JobError | None:
        self._thread.join(LONG_S)
        assert not self._thread.is_alive()
        assert self.error is None or isinstance(self.error, JobError)
        return self.error


class Job:
    """The hosts of a job on this machine; what they say and whether they were interrupted."""

    def __init__(self, port: int, count: int = 2) -> None:
        self.hosts = Hosts(count, 0, "127.0.0.1", port, LONG_S)
        self.said: list[str] = []
        self.interrupted: list[int] = []

    def link(self, rank: int, /, **changed: Any) -> HostLink:
        hosts = dataclasses.replace(self.hosts, rank=rank)
        hello = Hello(rank, hosts.count, f"node{rank}", 1, {"train.epochs": 1})
        hello = dataclasses.replace(hello, **changed)
        kind = FurtherLink if rank else LeadLink
        return kind(hosts, hello, self.said.append, lambda: self.interrupted.append(rank))

    def start(self, rank: int, work: Callable[[Any], object], /, **changed: Any) -> Host:
        return Host(self.link(rank, **changed), work)

    def wait_for_all(self) -> None:
        wait_for(lambda: any(line.startswith("All ") for line in self.said))


@pytest.fixture
def job(port: int) -> Job:
    return Job(port)


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + LONG_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def interrupted(link: HostLink) -> None:
    """Work until another host ends it."""
    wait_for(lambda: link.fault)
    raise Stopped("SIGTERM")


def failing(error: BaseException) -> Callable[[HostLink], None]:
    def work(_: HostLink) -> None:
        raise error

    return work


def test_all_hosts_begin_together_at_the_same_port(job: Job) -> None:
    ports: list[int] = []
    began = threading.Barrier(2)

    def lead(link: LeadLink) -> None:
        ports.append(link.launch().port)
        link.begin(lambda: True)
        began.wait(LONG_S)

    def further(link: FurtherLink) -> None:
        assert link.is_needed()
        ports.append(link.launch().port)
        link.begin(lambda: True)
        began.wait(LONG_S)
        link.wait_for_end()

    hosts = job.start(0, lead), job.start(1, further)
    assert [host.end() for host in hosts] == [None, None]
    assert len(set(ports)) == 1
    assert ports[0] != job.hosts.port


def test_a_further_host_that_is_not_needed_ends_with_host_0(job: Job) -> None:
    needed: list[bool] = []
    hosts = (
        job.start(0, lambda _: None),
        job.start(1, lambda link: needed.append(link.is_needed())),
    )
    assert [host.end() for host in hosts] == [None, None]
    assert needed == [False]


def test_the_others_end_with_the_exit_code_of_a_host_that_fails(job: Job) -> None:
    job = Job(job.hosts.port, count=3)
    fault = HardwareError("out of memory", "a hint")

    def fail(_: HostLink) -> None:
        job.wait_for_all()
        raise fault

    hosts = [job.start(0, interrupted), job.start(1, fail), job.start(2, interrupted)]
    ends = [host.end() for host in hosts]
    assert ends[1] is fault
    for end in (ends[0], ends[2]):
        assert end is not None
        assert end.exit_code == ExitCode.HARDWARE
        assert end.message == "host 1 (node1): out of memory"
        assert end.hint == "a hint"
    assert sorted(job.interrupted) == [0, 2]


def test_a_stop_on_host_0_stops_the_others(job: Job) -> None:
    hosts = [job.start(0, failing(Stopped("SIGTERM"))), job.start(1, interrupted)]
    hosts[0]._thread.join(LONG_S)
    assert isinstance(hosts[0].error, Stopped)
    end = hosts[1].end()
    assert end is not None
    assert end.exit_code == ExitCode.STOPPED
    assert end.message == "host 0 (node0): stopped (SIGTERM)"


def test_the_cause_wins_over_what_it_led_to_on_another_host(job: Job) -> None:
    # both fail, as processes that exchange values do; only host 1 knows why
    come = threading.Event()

    def lead(link: LeadLink) -> None:
        come.set()
        error = JobError("connection closed by peer")
        link.ended(error, may_follow=True)
        raise error

    def further(_: HostLink) -> None:
        come.wait(LONG_S)
        raise HardwareError("out of memory")

    hosts = job.start(0, lead), job.start(1, further)
    end = hosts[0].end()
    assert end is not None
    assert end.message == "host 1 (node1): out of memory"
    hosts[1].end()


def test_a_fault_of_the_program_is_told_at_once(job: Job) -> None:
    fault = JobError("the GPU side failed: KeyError: 1")
    hosts = job.start(0, failing(fault)), job.start(1, interrupted)
    assert hosts[0].end() is fault
    end = hosts[1].end()
    assert end is not None
    assert end.message == "host 0 (node0): the GPU side failed: KeyError: 1"


def test_a_host_that_goes_without_a_word_stops_the_others(job: Job) -> None:
    lead = job.start(0, interrupted)
    with contextlib.ExitStack() as stack:
        connection = stack.enter_context(_connected(job.hosts.port))
        _say_hello(connection, job)
        job.wait_for_all()
    end = lead.end()
    assert end is not None
    assert end.exit_code == ExitCode.STOPPED
    assert end.message == "stopped: host 1 (node1) has ended without a word"


def test_a_host_that_says_nothing_for_long_is_lost(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_peer, "SILENCE_S", 0.2)
    lead = job.start(0, interrupted)
    with _connected(job.hosts.port) as connection:
        _say_hello(connection, job)
        end = lead.end()
    assert end is not None
    assert end.exit_code == ExitCode.STOPPED
    assert "host 1 (node1) has not answered for" in end.message


@pytest.mark.parametrize(
    ("rank", "said"),
    [(0, "hosts 1 and 2 did not come to 127.0.0.1:"), (1, "host 0 did not answer at 127.0.0.1:")],
)
def test_a_host_that_does_not_come_in_time_is_named(job: Job, rank: int, said: str) -> None:
    job = Job(job.hosts.port, count=3)
    job.hosts = dataclasses.replace(job.hosts, limit_s=0.05)
    end = job.start(rank, interrupted).end()
    assert isinstance(end, HardwareError)
    assert end.message.startswith(said)
    assert "--rendezvous-timeout" in end.hint


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"settings": {"train.epochs": 3}}, "train.epochs is 1 on host 0 and 3 on host 1 (node1)"),
        ({"processes": 4}, "host 1 (node1) starts 4 processes and host 0 1: give the same --gpus"),
        ({"count": 3}, "host 1 (node1) has --hosts 3, and host 0 has --hosts 2"),
        ({"rank": 0}, "host 0 (node1): there is no such --host-rank"),
    ],
)
def test_a_host_that_does_not_fit_ends_all_before_any_work(
    job: Job, changed: dict[str, Any], fault: str
) -> None:
    hosts = job.start(0, interrupted), job.start(1, interrupted, **changed)
    for host in hosts:
        end = host.end()
        assert isinstance(end, ConfigurationError)
        assert fault in end.message


def test_two_hosts_of_the_same_rank_are_refused(job: Job) -> None:
    job = Job(job.hosts.port, count=3)
    hosts = [job.start(0, interrupted), job.start(1, interrupted), job.start(1, interrupted)]
    for host in hosts:
        end = host.end()
        assert isinstance(end, ConfigurationError)
        assert "another host has the same --host-rank" in end.message


def test_another_version_of_the_program_is_refused(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_peer, "CLOSE_S", 0.05)
    lead = job.start(0, interrupted)
    with _connected(job.hosts.port) as connection:
        connection.sendall(json.dumps({"kind": "hello", "version": "0.0.1"}).encode() + b"\n")
        end = lead.end()
    assert isinstance(end, ConfigurationError)
    assert f"another host runs nlijob 0.0.1, and host 0 runs {__version__}" in end.message


@pytest.mark.parametrize("noise", [b"GET / HTTP/1.1\r\n\r\n", b"", b"[1]\n", b"\xff" * 100])
def test_other_programs_at_the_port_are_turned_away(job: Job, noise: bytes) -> None:
    lead = job.start(0, lambda _: None)
    with _connected(job.hosts.port) as connection:
        connection.sendall(noise)
        connection.shutdown(socket.SHUT_WR)
        further = job.start(1, lambda link: link.wait_for_end())
        assert [lead.end(), further.end()] == [None, None]


def test_a_port_that_is_taken_is_a_fault_of_the_configuration(job: Job) -> None:
    with socket.create_server(("127.0.0.1", job.hosts.port)):
        end = job.start(0, interrupted).end()
    assert isinstance(end, ConfigurationError)
    assert f"cannot listen at port {job.hosts.port}" in end.message


def test_the_others_show_the_stage_of_the_job(job: Job) -> None:
    def lead(link: LeadLink) -> None:
        link.stage = "train"
        wait_for(lambda: "Host 0 is at the stage train" in job.said)

    hosts = job.start(0, lead), job.start(1, lambda link: link.wait_for_end())
    assert [host.end() for host in hosts] == [None, None]


def test_the_gpu_side_uses_the_network_of_the_rendezvous(job: Job) -> None:
    networks: list[dict[str, str]] = []
    work = lambda link: networks.append(link.network)  # noqa: E731
    hosts = job.start(0, work), job.start(1, work)
    assert [host.end() for host in hosts] == [None, None]
    assert networks == [{"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "=lo"}] * 2


@contextlib.contextmanager
def _connected(port: int) -> Iterator[socket.socket]:
    found: list[socket.socket] = []

    def connect() -> bool:
        with contextlib.suppress(ConnectionRefusedError):
            found.append(socket.create_connection(("127.0.0.1", port)))
        return bool(found)

    wait_for(connect)
    with found[0] as connection:
        yield connection


def _say_hello(connection: socket.socket, job: Job) -> None:
    hello = dataclasses.asdict(job.link(1).hello)
    word = {"kind": "hello", "version": __version__, "hello": hello}
    connection.sendall(json.dumps(word).encode() + b"\n")
