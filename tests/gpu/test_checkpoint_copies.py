"""A checkpoint's copy on a GPU: made in pinned memory that is used again, and never too early."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch

from nlijob.gpu import checkpoints
from nlijob.gpu.writer import Writer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]
SIZE = 100_003


def state(value: float) -> dict[str, Any]:
    """What a checkpoint holds, in miniature."""
    tensors = {number: torch.full((SIZE,), value + number, device="cuda") for number in range(8)}
    return {"optimizer": tensors, "step": torch.tensor(value, device="cuda"), "epoch": 3}


def filled(found: dict[str, Any], value: float) -> bool:
    tensors = found["optimizer"]
    return all(bool((tensors[n] == value + n).all()) for n in tensors) and found["step"] == value


def test_a_copy_is_whole_and_stays_as_it_is() -> None:
    training = state(1.0)
    copied = checkpoints.on_host(training)
    training["optimizer"][0].add_(5)
    training["step"].add_(5)
    assert filled(copied, 1.0)
    assert copied["epoch"] == 3
    assert all(one.is_pinned() for one in copied["optimizer"].values())


def test_a_copy_is_not_overwritten_while_it_is_being_written() -> None:
    writer, may_end, written = Writer(), threading.Event(), list[bool]()

    def begin(value: float) -> set[int]:
        """Copy such a state and begin to write it; returns where the copy lies."""
        copied = checkpoints.on_host(state(value))

        def write() -> None:
            assert may_end.wait(60)
            written.append(filled(copied, value))

        writer.do(write)
        return places(copied)

    first = begin(1.0)
    second = checkpoints.on_host(state(2.0))  # of the next epoch, while the first is written
    assert not first & places(second)
    may_end.set()
    writer.wait()
    begin(3.0)
    writer.wait()
    assert written == [True, True]
    assert filled(second, 2.0)


def test_memory_of_a_copy_that_is_written_is_used_again() -> None:
    seen: set[int] = set()
    for value in range(6):
        copied = checkpoints.on_host(state(float(value)))
        new = places(copied) - seen
        assert value < 2 or not new
        seen |= new
        del copied
        torch.cuda.synchronize()  # torch gives memory again once the device is done with it


@pytest.mark.parametrize("reason", ["none left", "too large"])
def test_without_pinned_memory_a_copy_is_made_all_the_same(
    monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    def none_left(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA error: out of memory")

    training = state(4.0)
    if reason == "none left":
        monkeypatch.setattr(torch, "empty_like", none_left)
    else:
        monkeypatch.setattr(checkpoints, "MAX_PINNED_BYTES", 1000)
    copied = checkpoints.on_host(training)
    assert filled(copied, 4.0)
    assert not any(one.is_pinned() for one in copied["optimizer"].values())


def places(copied: dict[str, Any]) -> set[int]:
    return {one.data_ptr() for one in copied["optimizer"].values()}
