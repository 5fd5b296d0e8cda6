"""Small groups of processes on the CPU, joined as those of the GPU side are, for tests of what
they do together.

    def both(group: Group, number: int) -> list[int]: ...   # at the top of a module

    assert in_group(2, both, 3) == [[0, 3], [0, 3]]          # what each process returned, by rank

On a CPU the processes are forked from a server that has imported torch, which the first call
starts: later calls take a tenth of a second. On GPUs each process imports the libraries itself, as
bitsandbytes uses CUDA when it is imported, and a fork could not use it any more.
"""

from __future__ import annotations

import multiprocessing
import os
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from typing import Any, Concatenate, ParamSpec, TypeVar

from torch.distributed import TCPStore  # type: ignore[attr-defined]

from nlijob.gpu.group import Group, ProcessGroup

P = ParamSpec("P")
T = TypeVar("T")

LIMIT_S = 500.0
"""Longest time that a test's processes may take for one step; they take far less."""
DEATHS_S = 3.0
"""How long the death of a process may become known later than the errors that it causes."""
LOOPBACK = "127.0.0.1"


def in_group(
    size: int,
    function: Callable[Concatenate[Group, P], T],
    *arguments: P.args,
    **named: P.kwargs,
) -> list[T]:
    """What `function(group, ...)` returns in each process of a group of `size`, by rank.

    Arguments and results are pickled. Raises AssertionError with the traceback of a process that
    fails, or with the status of one that dies; the others are then ended.
    """
    return _in_group("cpu", size, function, arguments, named)


def on_gpus(
    size: int,
    function: Callable[Concatenate[Group, P], T],
    *arguments: P.args,
    **named: P.kwargs,
) -> list[T]:
    """The same with a GPU for each process, and NCCL between them."""
    return _in_group("cuda", size, function, arguments, named)


def _in_group(
    device: str,
    size: int,
    function: Callable[..., T],
    arguments: tuple[Any, ...],
    named: dict[str, Any],
) -> list[T]:
    context: Any = multiprocessing.get_context("spawn" if device == "cuda" else "forkserver")
    if device == "cpu":
        # whichever test comes first, so that no process imports the libraries for itself
        context.set_forkserver_preload(["nlijob.gpu.worker", function.__module__])
    store = TCPStore(LOOPBACK, 0, is_master=True, wait_for_workers=False)
    started = []
    try:
        for rank in range(size):
            own, other = context.Pipe()
            settings = _variables(rank, size, store.port)
            process = context.Process(
                target=_work,
                args=(other, device, settings, function, arguments, named),
                daemon=True,
            )
            process.start()
            other.close()
            started.append((process, own))
        answers = _answers([own for _, own in started])
        for _, own in started:
            own.send(None)  # all have answered, so each may leave the group
        for process, _ in started:
            process.join(LIMIT_S)
        return answers
    finally:
        for process, own in started:
            process.kill()
            process.join()
            own.close()


def _variables(rank: int, size: int, port: int) -> dict[str, str]:
    """The variables with which torchrun starts a process; the store is this process's."""
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(size),
        "LOCAL_WORLD_SIZE": str(size),
        "MASTER_ADDR": LOOPBACK,
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "GLOO_SOCKET_IFNAME": "lo",
    }


def _answers(pipes: list[Connection]) -> list[Any]:
    """What each process returned.

    A process that dies makes those fail that wait for it, and their errors may come first. So after
    a failure the others get `DEATHS_S` to be found dead, and a dead one is told rather than a
    failed one.
    """
    answers: dict[int, Any] = {}
    failed: dict[int, str] = {}
    while len(answers) + len(failed) < len(pipes):
        silent = {
            pipe: rank
            for rank, pipe in enumerate(pipes)
            if rank not in answers and rank not in failed
        }
        answered = wait(list(silent), DEATHS_S if failed else LIMIT_S)
        if not answered and failed:
            break  # the others wait for the failed ones, and may do so for ever
        assert answered, f"the processes {list(silent.values())} gave no answer"
        for pipe in answered:
            assert isinstance(pipe, Connection)
            rank = silent[pipe]
            try:
                answers[rank], error = pipe.recv()
            except EOFError:
                raise AssertionError(f"process {rank} died") from None
            if error:
                del answers[rank]
                failed[rank] = error
    assert not failed, "\n".join(
        f"process {rank} failed:\n{error}" for rank, error in sorted(failed.items())
    )
    return [answers[rank] for rank in range(len(pipes))]


def _work(
    parent: Connection,
    device: str,
    settings: dict[str, str],
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    named: dict[str, Any],
) -> None:
    import torch
    from torch import distributed

    os.environ.update(settings)
    torch.set_num_threads(1)
    try:
        value = function(ProcessGroup(device), *arguments, **named)
    except BaseException:
        parent.send((None, traceback.format_exc()))
    else:
        parent.send((value, ""))
    parent.recv()
    # NCCL would wait for its graphs, which may still be referred to
    if distributed.is_initialized() and device == "cpu":
        distributed.destroy_process_group()
