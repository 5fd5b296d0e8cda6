from __future__ import annotations

import contextlib
import threading
import time
import weakref

import pytest

from nlijob.gpu.writer import Writer


def test_the_caller_goes_on_while_something_is_written() -> None:
    writer, may_end, done = Writer(), threading.Event(), threading.Event()

    def write() -> None:
        assert may_end.wait(60)
        done.set()

    writer.do(write)
    assert not done.is_set()
    may_end.set()
    writer.wait()
    assert done.is_set()


def test_a_writer_is_idle_once_everything_is_written() -> None:
    writer, may_end = Writer(), threading.Event()
    assert writer.is_idle

    def write() -> None:
        assert may_end.wait(60)

    writer.do(write)
    assert not writer.is_idle
    may_end.set()
    writer.wait()
    assert writer.is_idle


def test_things_are_written_in_order() -> None:
    writer, written = Writer(), list[int]()
    for i in range(5):
        writer.do(lambda i=i: written.append(i))  # type: ignore[misc]
    writer.wait()
    assert written == [0, 1, 2, 3, 4]


def test_what_was_written_is_let_go_of() -> None:
    # a checkpoint's memory is used again for a later one once nothing refers to it
    writer, content = Writer(), set[int]()
    left = weakref.ref(content)
    writer.do(lambda content=content: content.add(1))  # type: ignore[misc]
    writer.wait()
    del content
    writer.do(lambda: None)  # the thread goes on to something else
    writer.wait()
    assert left() is None


def test_a_fault_while_writing_comes_out_where_it_is_waited_for() -> None:
    writer = Writer()

    def full() -> None:
        raise OSError("no space left")

    writer.do(full)
    with pytest.raises(OSError, match="no space"):
        writer.wait()
    writer.wait()  # told once


def test_what_is_being_written_is_finished_whatever_happens() -> None:
    written = list[str]()

    def write() -> None:
        time.sleep(0.1)
        written.append("whole")

    with contextlib.suppress(KeyError), Writer() as writer:
        writer.do(write)
        raise KeyError
    assert written == ["whole"]
