"""Compiled kernels are kept on disk, and nothing but a whole file of the same source is used."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from nlijob.errors import DiskError
from nlijob.gpu.fast import cuda, kernel_cache, row_dropout
from nlijob.gpu.fast.errors import Unsupported
from nlijob.gpu.fast.kernel_cache import KernelCache


@pytest.fixture
def cache(tmp_path: Path) -> KernelCache:
    return KernelCache(tmp_path / "kernels")


class Compiler:
    """Returns another binary each time."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> bytes:
        self.calls += 1
        return f"binary {self.calls}".encode()


def get(
    cache: KernelCache,
    compiler: Compiler,
    text: bytes = b"source",
    options: tuple[str, ...] = ("sm_90",),
    version: str = "NVRTC 13.0",
) -> bytes:
    return cache.get(text, options, version, compiler)


def test_what_was_compiled_once_is_read_the_next_time(cache: KernelCache) -> None:
    compiler = Compiler()
    assert [get(cache, compiler), get(cache, compiler)] == [b"binary 1", b"binary 1"]
    assert compiler.calls == 1


def test_another_source_option_or_compiler_is_compiled_anew(cache: KernelCache) -> None:
    compiler = Compiler()
    get(cache, compiler)
    get(cache, compiler, text=b"source 2")
    get(cache, compiler, options=("sm_80",))
    get(cache, compiler, options=("sm_90", "-DRANK=8"))
    get(cache, compiler, version="NVRTC 13.1")
    assert compiler.calls == 5
    assert get(cache, compiler) == b"binary 1"


@pytest.mark.parametrize("left", [0, 10, -1])
def test_a_torn_file_is_compiled_anew_and_replaced(cache: KernelCache, left: int) -> None:
    compiler = Compiler()
    get(cache, compiler)
    (file,) = cache.folder.iterdir()
    file.write_bytes(file.read_bytes()[:left])
    assert [get(cache, compiler), get(cache, compiler)] == [b"binary 2", b"binary 2"]


def test_a_changed_file_is_compiled_anew(cache: KernelCache) -> None:
    compiler = Compiler()
    get(cache, compiler)
    (file,) = cache.folder.iterdir()
    file.write_bytes(file.read_bytes()[:-1] + b"9")
    assert get(cache, compiler) == b"binary 2"


def test_without_a_writable_cache_it_is_compiled_each_time(
    cache: KernelCache, tmp_path: Path
) -> None:
    (tmp_path / "kernels").write_text("a file in the folder's place", encoding="utf-8")
    compiler = Compiler()
    assert [get(cache, compiler), get(cache, compiler)] == [b"binary 1", b"binary 2"]


def test_a_full_disk_keeps_nothing_and_fails_nothing(
    cache: KernelCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path) -> None:
        raise DiskError("full", "free space")

    monkeypatch.setattr(kernel_cache, "atomic_write", full)
    assert get(cache, Compiler()) == b"binary 1"


def test_those_that_were_used_last_are_kept(
    cache: KernelCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel_cache, "MOST", 2)
    compiler = Compiler()
    moments = itertools.count()
    for text in (b"a", b"b", b"c"):
        before = {*cache.folder.glob("*")}
        get(cache, compiler, text=text)
        for file in {*cache.folder.glob("*")} - before:
            moment = next(moments)
            os.utime(file, (moment, moment))
    assert compiler.calls == 3
    get(cache, compiler, text=b"c")
    get(cache, compiler, text=b"b")
    assert compiler.calls == 3
    get(cache, compiler, text=b"a")
    assert compiler.calls == 4


def test_the_folder_is_no_models_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(constants, "HF_ASSETS_CACHE", str(tmp_path))
    assert KernelCache().folder == tmp_path / "nlijob" / ".kernels"


def test_a_source_is_compiled_once_for_a_gpu(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(constants, "HF_ASSETS_CACHE", str(tmp_path))
    monkeypatch.setattr(cuda, "compiler", lambda: "NVRTC 13.0")
    compiled: list[tuple[str, ...]] = []

    def compile_cubin(name: str, text: bytes, options: list[str]) -> bytes:
        compiled.append(tuple(options))
        return repr(options).encode()

    monkeypatch.setattr(cuda, "compile_cubin", compile_cubin)
    source = row_dropout.SOURCE
    first = source.kept_cubin((9, 0), torch.float32)
    assert source.kept_cubin((9, 0), torch.float32) == first
    assert source.kept_cubin((8, 0), torch.float32) != first
    assert source.kept_cubin((9, 0), torch.float16) != first
    assert len(compiled) == 3


def test_without_the_compilers_library_kernels_are_unsupported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Nvrtc:
        def nvrtcVersion(self) -> None:  # noqa: N802
            raise RuntimeError("no such library")

    monkeypatch.setattr(cuda, "_nvrtc", Nvrtc)
    with pytest.raises(Unsupported, match="no such library"):
        cuda.compiler()
