"""The connection between the commands of several hosts: who is there, when to begin, how it ended.

The commands on the hosts (the parents of the GPU side) meet at the rendezvous before anything else
is done. Host 0 listens, the others connect and stay connected. So each host learns at once when
another one fails, is stopped or vanishes, ends its own processes, and ends with the same exit code.
The processes of the GPU side make up their own group (`nlijob.gpu.group`); its port is told here.

Every host says something every few seconds.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import signal
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

from nlijob import __version__, host_peer, records
from nlijob.analysis.wording import listed
from nlijob.belonging import differences, shortened
from nlijob.ending import end_of
from nlijob.errors import (
    ConfigurationError,
    ExitCode,
    HardwareError,
    JobError,
    error_for,
)
from nlijob.host_peer import End, Hello, Peer, Word, free_port, listen
from nlijob.hosts import Hosts
from nlijob.printable import printable
from nlijob.records.job import Inputs
from nlijob.stopping import Stopped

BEAT_S = 2.0
"""Time between two signs of life."""
CAUSE_S = 5.0
"""Longest time that a host waits for the word of another host that failed before it."""
RETRY_S = 0.5
POLL_S = 0.1
RETRY_HINT = "start the same command on all hosts again; it resumes from what is complete"


class HostLink(ABC):
    """This host's connections to the others. Use it within `joined`."""

    def __init__(
        self,
        hosts: Hosts,
        hello: Hello,
        say: Callable[[str], None],
        interrupt: Callable[[], None] | None = None,
    ) -> None:
        """`hello`: what this host says of itself. `say` prints a line.

        `interrupt` has the main thread end its work, whatever it does; by default with a signal.
        """
        self.hosts = hosts
        self.hello = hello
        self.fault: JobError | None = None
        """Why another host ended, once one has ended before its time."""
        self._fault_end: End | None = None
        self._say = say
        self._interrupt = interrupt or _stop_main_thread
        self._peers: list[Peer] = []
        self._threads: list[threading.Thread] = []
        self._lock = threading.RLock()
        self._has_ended = False
        """Whether this host has begun to end; it then needs no interruption."""
        self._last_word: End | None = None
        self._closed = threading.Event()

    @abstractmethod
    def meet(self) -> None:
        """Wait until all hosts are there. Raises JobError where that takes too long."""

    @abstractmethod
    def launch(self) -> Hosts:
        """The hosts, with the port of the GPU side's group, which starts on all of them now."""

    @abstractmethod
    def begin(self, is_alive: Callable[[], bool]) -> None:
        """Return once the GPU side of every host can begin, or this host's is no longer alive."""

    @property
    def network(self) -> dict[str, str]:
        """Variables by which the GPU side meets that of other hosts: over the network of this link.

        By default gloo takes the address that the host's own name has, which on many systems is one
        of the host itself, and NCCL the first network card.
        """
        name = self._peers[0].interface() if self._peers else None
        return {"GLOO_SOCKET_IFNAME": name, "NCCL_SOCKET_IFNAME": f"={name}"} if name else {}

    def ended(self, error: BaseException | None, may_follow: bool = False) -> None:
        """Tell the others how this host's work ended, once; the first call counts.

        `may_follow`: whether the error may only follow from another host's. Then that one is waited
        for a while: if a process dies, those that exchange values with it fail too.
        """
        with self._lock:
            if self._last_word:
                return
            self._has_ended = True
        end = End(*end_of(error))
        if may_follow:
            self._wait(lambda: self.fault is not None, CAUSE_S)
        with self._lock:
            self._last_word = self._fault_end or end
        for peer in self._peers:
            peer.say(Word("end", end=self._last_word))

    def close(self, error: BaseException | None) -> None:
        """Say how this host ended, if it was not said, and close the connections."""
        self.ended(error)
        self._closed.set()
        for peer in self._peers:
            peer.close_after_last_word()
        deadline = time.monotonic() + host_peer.CLOSE_S
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        for peer in self._peers:
            peer.close()

    def _start(self, *work: Callable[[], None]) -> None:
        for one in work:
            thread = threading.Thread(target=one, name="hosts", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _listen_to(self, peer: Peer) -> None:
        """Take in what another host says, to its end."""
        lost = "has ended without a word"
        try:
            for word in peer.words():
                if word.kind == "end" and word.end:
                    self._has_ended_there(peer, word.end)
                    return
                self._hear(peer, word)
        except TimeoutError:
            lost = f"has not answered for {host_peer.SILENCE_S:.0f} s"
        except (OSError, ValueError):
            pass
        self._end_by(End(ExitCode.STOPPED, f"stopped: {peer.name} {lost}", RETRY_HINT))

    @abstractmethod
    def _hear(self, peer: Peer, word: Word) -> None:
        """Take in a word that is not the last."""

    def _has_ended_there(self, peer: Peer, end: End) -> None:
        if end.exit_code != ExitCode.DONE:
            self._end_by(dataclasses.replace(end, host=end.host or peer.name))

    def _end_by(self, end: End) -> None:
        """Another host has ended before its time; so does this one, for the same reason."""
        with self._lock:
            if self.fault or self._last_word:
                return
            self._fault_end = end
            message = f"{end.host}: {end.message}" if end.host else end.message
            self.fault = error_for(end.exit_code, message, end.hint)
            if not self._has_ended:
                self._interrupt()

    def _beat(self) -> None:
        while not self._closed.wait(BEAT_S):
            for peer in list(self._peers):
                peer.say(self._sign_of_life())

    def _sign_of_life(self) -> Word:
        return Word("beat")

    def _wait(self, is_over: Callable[[], bool], limit_s: float | None = None) -> bool:
        """Wait for something; returns whether it came before the limit."""
        deadline = None if limit_s is None else time.monotonic() + limit_s
        while not is_over():
            if deadline is not None and time.monotonic() > deadline:
                return False
            time.sleep(POLL_S)
        return True

    def _raise_fault(self) -> None:
        if self.fault:
            raise self.fault


class LeadLink(HostLink):
    """The link of host 0."""

    stage = ""
    """The stage of the job, which the others show."""

    def meet(self) -> None:
        """See `HostLink`. Raises ConfigurationError where a host does not fit the others."""
        hosts = self.hosts
        self._faults: list[str] = []
        with listen(hosts) as listener:
            self._start(functools.partial(self._accept, listener), self._beat)
            self._say(f"Waiting at {hosts.endpoint} for {self._missing()}")
            try:
                in_time = self._wait(self._is_settled, hosts.limit_s)
            finally:
                with contextlib.suppress(OSError):
                    listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._raise_fault()
        if self._faults:
            raise ConfigurationError.from_faults(
                self._faults, "start the same command on all hosts, apart from --host-rank"
            )
        if not in_time:
            raise HardwareError(
                f"{self._missing()} did not come to {hosts.endpoint} within {hosts.limit_s:.0f} s",
                "check that the command runs there with this --rendezvous and that a firewall "
                "lets it through; --rendezvous-timeout waits longer",
            )
        self._say(f"All {hosts.count} hosts are there: {listed(self._names())}")

    def launch(self) -> Hosts:
        """See `HostLink`."""
        port = free_port()
        for peer in self._peers:
            peer.say(Word("launch", port=port))
        return dataclasses.replace(self.hosts, port=port)

    def begin(self, is_alive: Callable[[], bool]) -> None:
        """See `HostLink`."""
        self._wait(lambda: all(peer.is_ready for peer in self._peers) or not is_alive())
        for peer in self._peers:
            peer.say(Word("begin"))

    def _sign_of_life(self) -> Word:
        return Word("beat", stage=self.stage)

    def _is_settled(self) -> bool:
        """Whether all hosts are there, or one of them cannot take part."""
        return bool(self._faults or self.fault or not self._missing())

    def _missing(self) -> str:
        """The hosts that have not come, in words; "" if all are there."""
        there = {peer.hello.rank for peer in self._peers if peer.hello}
        ranks = [str(rank) for rank in range(1, self.hosts.count) if rank not in there]
        return f"host{'s' if ranks[1:] else ''} {listed(ranks)}" if ranks else ""

    def _names(self) -> list[str]:
        return [self.hello.host, *(peer.hello.host for peer in self._peers if peer.hello)]

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:  # all are there
                return
            self._start(functools.partial(self._welcome, Peer(connection)))

    def _welcome(self, peer: Peer) -> None:
        """Let a host in, and listen to it. Other programs that connect are turned away."""
        try:
            value = peer.first_word()
            if not isinstance(value, dict) or value.get("kind") != "hello":
                raise ValueError("no hello")
            if value.get("version") == __version__:
                peer.hello = records.from_json(Word, value).hello
        except (OSError, ValueError):
            peer.close()
            return
        with self._lock:
            faults = self._faults_of(peer, printable(str(value.get("version"))))
            self._faults += faults
            self._peers.append(peer)
        peer.say(Word("hello", hello=dataclasses.replace(self.hello, settings={})))
        self._listen_to(peer)

    def _hear(self, peer: Peer, word: Word) -> None:
        peer.is_ready |= word.kind == "ready"

    def _faults_of(self, peer: Peer, version: str) -> list[str]:
        """Why a host cannot take part, in words."""
        if peer.hello is None:
            return [f"another host runs nlijob {version}, and host 0 runs {__version__}"]
        own, its, name = self.hello, peer.hello, peer.name
        faults = []
        if its.count != own.count:
            faults.append(f"{name} has --hosts {its.count}, and host 0 has --hosts {own.count}")
        elif not 0 < its.rank < own.count:
            faults.append(f"{name}: there is no such --host-rank")
        if any(other.hello and other.hello.rank == its.rank for other in self._peers):
            faults.append(f"{name}: another host has the same --host-rank")
        if its.processes != own.processes:
            faults.append(
                f"{name} starts {its.processes} processes and host 0 {own.processes}: "
                f"give the same --gpus everywhere"
            )
        here, there = (Inputs(one.settings, {}, "") for one in (own, its))
        if differing := list(differences(here, there, ("on host 0", f"on {name}"))):
            faults.append(shortened(differing))
        return faults


class FurtherLink(HostLink):
    """The link of another host than host 0."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        """As `HostLink`."""
        super().__init__(*arguments, **settings)
        self._port = 0
        self._may_begin = False
        self._stage = ""
        self.is_done = False
        """Whether host 0 has ended, with exit code 0."""

    def meet(self) -> None:
        """See `HostLink`; waits for host 0 alone."""
        hosts = self.hosts
        self._say(f"Connecting to host 0 at {hosts.endpoint}")
        fault: list[OSError] = []
        if not self._wait(lambda: self._connect(fault), hosts.limit_s):
            raise HardwareError(
                f"host 0 did not answer at {hosts.endpoint} within {hosts.limit_s:.0f} s: "
                f"{fault[-1].strerror or fault[-1]}",
                "check that the command runs there with --host-rank 0 and the same --rendezvous, "
                "and that a firewall lets it through; --rendezvous-timeout waits longer",
            )
        (peer,) = self._peers
        peer.say(Word("hello", version=__version__, hello=self.hello))
        self._start(lambda: self._listen_to(peer), self._beat)

    def is_needed(self) -> bool:
        """Wait until host 0 starts the GPU side; False if it has ended well without doing so."""
        self._wait(lambda: bool(self._port or self.is_done or self.fault))
        self._raise_fault()
        return bool(self._port)

    def launch(self) -> Hosts:
        """See `HostLink`; host 0 says when, which `is_needed` waits for."""
        return dataclasses.replace(self.hosts, port=self._port)

    def begin(self, is_alive: Callable[[], bool]) -> None:
        """See `HostLink`."""
        for peer in self._peers:
            peer.say(Word("ready"))
        self._wait(lambda: bool(self._may_begin or self.fault) or not is_alive())
        self._raise_fault()

    def wait_for_end(self) -> None:
        """Wait until host 0 has ended well. Raises its error otherwise."""
        self._wait(lambda: bool(self.is_done or self.fault))
        self._raise_fault()

    def _connect(self, fault: list[OSError]) -> bool:
        try:
            connection = socket.create_connection(
                (self.hosts.address, self.hosts.port), timeout=host_peer.SILENCE_S
            )
        except OSError as error:
            fault.append(error)
            time.sleep(RETRY_S)
            return False
        self._peers.append(Peer(connection))
        return True

    def _hear(self, peer: Peer, word: Word) -> None:
        if word.hello:
            peer.hello = word.hello
        if word.kind == "launch":
            self._port = word.port
        self._may_begin |= word.kind == "begin"
        if word.stage and word.stage != self._stage:
            self._stage = word.stage
            self._say(f"Host 0 is at the stage {printable(word.stage)}")

    def _has_ended_there(self, peer: Peer, end: End) -> None:
        if end.exit_code == ExitCode.DONE:
            self.is_done = True
        else:
            super()._has_ended_there(peer, end)


@contextlib.contextmanager
def joined(link: HostLink) -> Iterator[None]:
    """Meet the other hosts, and tell them at the end of the block how it ended.

    If another host has ended the work in the block, its error is raised instead of the block's.
    """
    with fault_of_others(link), _closed_after(link):
        link.meet()
        yield


@contextlib.contextmanager
def fault_of_others(link: HostLink | None) -> Iterator[None]:
    """Raise the error of another host where that is why the block ended."""
    try:
        yield
    except (Exception, Stopped):
        if link and link.fault:  # it came before this host had told of an end of its own
            raise link.fault from None
        raise


@contextlib.contextmanager
def _closed_after(link: HostLink) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        link.close(error)
        raise
    link.close(None)


def _stop_main_thread() -> None:
    """Have the main thread raise `Stopped`, as a signal from outside does."""
    os.kill(os.getpid(), signal.SIGTERM)
