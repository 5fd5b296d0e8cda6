"""The command on another host: what it compares, and how it works along with host 0.

In place of the GPU side there is a small process, and in place of host 0 its link.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nlijob import host_link, host_serving, launch
from nlijob.config import JobConfig, load_config
from nlijob.console import Console
from nlijob.errors import ExitCode, HardwareError, JobError
from nlijob.host_link import LeadLink, joined
from nlijob.host_peer import free_port
from nlijob.host_serving import hello, serve, settings, with_all_gpus
from nlijob.hosts import Hosts
from nlijob.hub import Hub
from nlijob.records.job import RunRecord
from nlijob.stopping import Stopped

WORKER = """
import json, os, sys
from pathlib import Path
root = Path(sys.argv[1])
begun = sys.stdin.buffer.read(1)
task = json.loads((root / "worker" / "task.json").read_text())
print("model:", task["model_dir"], flush=True)
sys.exit(int(sys.argv[2]))
"""


def changed(config: JobConfig, **keys: Any) -> JobConfig:
    """A configuration with other values, "section__key" -> value."""
    for key, value in keys.items():
        section, _, name = key.partition("__")
        table = dataclasses.replace(getattr(config, section), **{name: value})
        config = dataclasses.replace(config, **{section: table})
    return config


@pytest.fixture
def config() -> JobConfig:
    return load_config("demo", {"model.device": "cpu"})


def test_local_paths_and_the_choice_of_gpus_may_differ_between_hosts(config: JobConfig) -> None:
    other = changed(config, model__name="/models/x", data__dataset="/data", machine__share="none")
    assert settings(other) == settings(config)


def test_any_other_setting_is_compared(config: JobConfig) -> None:
    other = settings(changed(config, train__epochs=7))
    assert {key for key, value in settings(config).items() if other[key] != value} == {
        "train.epochs"
    }


def test_settings_are_the_same_after_their_way_over_the_network(config: JobConfig) -> None:
    assert json.loads(json.dumps(settings(config))) == settings(config)


def test_several_hosts_use_all_their_gpus_if_the_user_does_not_say_how_many(
    config: JobConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_serving, "gpu_count", lambda: 4)
    on_gpus = changed(config, model__device="cuda")
    assert with_all_gpus(on_gpus).machine.gpus == 4
    assert with_all_gpus(changed(on_gpus, machine__gpus=2)).machine.gpus == 2
    assert with_all_gpus(config).machine.gpus == "auto"


class Pair:
    """Host 0's link in a thread, and the command of host 1 in the test's own."""

    def __init__(
        self, config: JobConfig, root: Path, monkeypatch: pytest.MonkeyPatch, status: int
    ) -> None:
        self.root = root
        self.said = io.StringIO()
        self._record = RunRecord("job", "demo", config, (), "2026-01-01", "0")
        self._hosts = Hosts(2, 1, "127.0.0.1", free_port(), 30.0)
        argv = [sys.executable, "-c", WORKER]
        monkeypatch.setattr(
            launch, "launch_command", lambda run, *_: [*argv, str(run.root), str(status)]
        )
        monkeypatch.setattr(tempfile, "tempdir", str(root))
        monkeypatch.setattr(host_link, "_stop_main_thread", lambda: None)  # it is pytest's
        monkeypatch.setattr(host_link, "BEAT_S", 0.01)
        monkeypatch.setattr(host_link, "POLL_S", 0.01)

    def end(self, lead: Callable[[LeadLink], None]) -> BaseException | None:
        """How host 1 ends where host 0 does this."""
        thread = threading.Thread(target=self._lead, args=(lead,))
        thread.start()
        try:
            console = Console(self.said, results=self.said)
            serve(self._hosts, self._record, Hub(True, console.line), console)
        except JobError as error:
            return error
        finally:
            thread.join(60)
        return None

    def _lead(self, work: Callable[[LeadLink], None]) -> None:
        hosts = dataclasses.replace(self._hosts, rank=0)
        link = LeadLink(hosts, hello(hosts, self._record.config), lambda _: None, lambda: None)
        with contextlib.suppress(JobError, Stopped), joined(link):
            work(link)


@pytest.fixture
def pair(
    config: JobConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[int], Pair]:
    return lambda status: Pair(config, tmp_path, monkeypatch, status)


def all_of_it(link: LeadLink) -> None:
    link.launch()
    link.begin(lambda: True)


def test_another_host_works_along_and_leaves_nothing_behind(pair: Callable[[int], Pair]) -> None:
    hosts = pair(0)
    assert hosts.end(all_of_it) is None
    assert "The work of this host is done" in hosts.said.getvalue()
    assert not list(hosts.root.iterdir())


def test_another_host_starts_nothing_where_all_is_complete(pair: Callable[[int], Pair]) -> None:
    hosts = pair(1)
    assert hosts.end(lambda _: None) is None
    assert "Host 0 has found all complete" in hosts.said.getvalue()


def test_another_host_ends_with_the_error_of_host_0(pair: Callable[[int], Pair]) -> None:
    def fail(link: LeadLink) -> None:
        all_of_it(link)
        raise HardwareError("out of memory")

    hosts = pair(0)
    error = hosts.end(fail)
    assert isinstance(error, HardwareError)
    assert error.message.endswith("): out of memory")
    assert error.message.startswith("host 0 (")


def test_an_error_of_the_other_host_is_its_own_and_ends_host_0(
    pair: Callable[[int], Pair],
) -> None:
    heard: list[int] = []

    def listen(link: LeadLink) -> None:
        all_of_it(link)
        link._wait(lambda: link.fault is not None, 60)
        if link.fault:
            heard.append(link.fault.exit_code)

    error = pair(ExitCode.HARDWARE).end(listen)
    assert isinstance(error, HardwareError)
    assert heard == [ExitCode.HARDWARE]
