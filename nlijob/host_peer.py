"""What the commands of several hosts say to each other, and over what.

Messages are JSON, one a line.
"""

from __future__ import annotations

import contextlib
import errno
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal

import psutil

from nlijob import records
from nlijob.errors import ConfigurationError
from nlijob.hosts import Hosts

SILENCE_S = 15.0
"""A host that says nothing for so long is lost."""
CLOSE_S = 2.0
"""Longest time that the last word takes to arrive."""
LONGEST_LINE = 1 << 20
"""Bytes; a longer line comes from some other program."""


@dataclass(frozen=True)
class Hello:
    """What a host says of itself when it comes."""

    rank: int
    count: int
    """Number of hosts that this one was told of."""
    host: str
    """Its name, for messages."""
    processes: int
    """Number of processes of the GPU side that it starts."""
    settings: dict[str, Any]
    """Its configuration, "section.key" -> value; the same on all hosts."""


@dataclass(frozen=True)
class End:
    """How a host ended."""

    exit_code: int
    message: str = ""
    hint: str = ""
    host: str = ""
    """The host that ended first, in words, where that is another one."""


@dataclass(frozen=True)
class Word:
    """A message between two hosts."""

    kind: Literal["hello", "launch", "ready", "begin", "beat", "end"]
    """launch: start the GPU side; ready: it can begin here; begin: it can begin everywhere."""
    version: str = ""
    """With "hello": the version of nlijob."""
    hello: Hello | None = None
    port: int = 0
    """With "launch": the port of the GPU side's group on host 0."""
    stage: str = ""
    """With "beat", from host 0: the stage of the job."""
    end: End | None = None


class Peer:
    """Another host's command, at the other end of a connection."""

    def __init__(self, connection: socket.socket) -> None:
        self.hello: Hello | None = None
        self.is_ready = False
        self._connection = connection
        self._lines: BinaryIO = connection.makefile("rb")
        self._sending = threading.Lock()
        connection.settimeout(SILENCE_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    @property
    def name(self) -> str:
        """The host in words."""
        return f"host {self.hello.rank} ({self.hello.host})" if self.hello else "host 0"

    def interface(self) -> str | None:
        """Name of this host's network interface to the other host; None if it is not known."""
        with contextlib.suppress(OSError, psutil.Error):
            own = self._connection.getsockname()[0].removeprefix("::ffff:")
            for name, addresses in psutil.net_if_addrs().items():
                if any(address.address.partition("%")[0] == own for address in addresses):
                    return name
        return None

    def say(self, word: Word) -> None:
        """Send a word. A connection that is broken is noticed by the reader."""
        line = json.dumps(records.to_json(word)).encode() + b"\n"
        with contextlib.suppress(OSError), self._sending:
            self._connection.sendall(line)

    def first_word(self) -> Any:
        """The first word as plain JSON, which another version or program may have sent.

        Raises OSError and ValueError.
        """
        return records.parse(self._lines.readline(LONGEST_LINE))

    def words(self) -> Iterator[Word]:
        """The words as they come, to the end of the connection.

        Raises OSError where the host vanishes, and ValueError where it says what is no word.
        """
        while line := self._lines.readline(LONGEST_LINE):
            yield records.from_json(Word, records.parse(line))

    def close_after_last_word(self) -> None:
        """Send no more. The connection is closed by its reader at the other's last word."""
        with contextlib.suppress(OSError):
            self._connection.settimeout(CLOSE_S)
            self._connection.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close the connection, also while another thread reads."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)  # the reader holds a lock until it wakes
        for one in (self._lines, self._connection):
            with contextlib.suppress(OSError):
                one.close()


def listen(hosts: Hosts) -> socket.socket:
    """The socket at which host 0 waits for the others, on all its addresses."""
    try:
        try:
            return socket.create_server(
                ("", hosts.port), family=socket.AF_INET6, dualstack_ipv6=True
            )
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                raise
            return socket.create_server(("", hosts.port))  # there is no IPv6 here
    except OSError as error:
        raise ConfigurationError(
            f"--rendezvous: host 0 cannot listen at port {hosts.port}: {error.strerror}",
            "choose another port for all hosts",
        ) from None


def free_port() -> int:
    """A port of this host that nobody listens at."""
    with socket.create_server(("", 0)) as found:
        port: int = found.getsockname()[1]
        return port
