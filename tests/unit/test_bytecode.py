"""Where modules are not compiled and cannot be, the GPU side is given a place to keep them."""

from __future__ import annotations

import importlib.util
import os
import py_compile
import subprocess
import sys
from pathlib import Path

import pytest

from nlijob.bytecode import DONT_WRITE, PREFIX, bytecode_environment, is_compiled

READ_ONLY = {DONT_WRITE: "1"}
"""An environment in which Python writes nothing beside the sources."""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("huggingface_hub.constants.HF_ASSETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "pycache_prefix", None)
    return tmp_path / "cache" / "nlijob" / f".bytecode-{os.getuid()}"


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module that is not compiled."""
    monkeypatch.setattr(sys, "pycache_prefix", None)
    path = tmp_path / "module_of_a_test.py"
    path.write_text("value = 1\n", encoding="utf-8")
    return path


def test_modules_that_are_not_compiled_get_a_place_in_the_cache(cache: Path, source: Path) -> None:
    assert bytecode_environment(READ_ONLY, [source]) == {PREFIX: str(cache), DONT_WRITE: ""}
    assert cache.stat().st_mode & 0o777 == 0o700


def test_python_then_compiles_once_and_uses_it(cache: Path, source: Path) -> None:
    place = bytecode_environment(READ_ONLY, [source])
    command = [sys.executable, "-c", "import module_of_a_test"]
    environment = {**os.environ, **READ_ONLY, **place, "PYTHONPATH": str(source.parent)}
    subprocess.run(command, env=environment, check=True)
    (compiled,) = cache.rglob("module_of_a_test.*")
    assert compiled.suffix == ".pyc"
    assert not (source.parent / "__pycache__").exists()


def test_modules_that_are_compiled_need_none(cache: Path, source: Path) -> None:
    py_compile.compile(str(source))
    assert bytecode_environment(READ_ONLY, [source]) == {}
    assert not cache.exists()


def test_modules_that_python_can_compile_beside_their_sources_need_none(
    cache: Path, source: Path
) -> None:
    assert bytecode_environment({}, [source]) == {}


def test_a_folder_that_cannot_be_written_to_needs_one(
    cache: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.mkdir(parents=True)
    monkeypatch.setattr(os, "access", lambda path, _: Path(path) == cache)
    assert bytecode_environment({}, [source])[PREFIX] == str(cache)


def test_a_place_that_the_user_chose_stays(cache: Path, source: Path) -> None:
    assert bytecode_environment({**READ_ONLY, PREFIX: "/somewhere"}, [source]) == {}


def test_a_few_modules_without_one_do_not_count(cache: Path, source: Path) -> None:
    others = [source.with_name(f"{name}.py") for name in "ab"]
    for other in others:
        other.write_text("", encoding="utf-8")
        py_compile.compile(str(other))
    assert bytecode_environment(READ_ONLY, [source, *others]) == {}


@pytest.mark.parametrize("mode", [0o777, 0o770])
def test_a_folder_that_others_may_write_to_is_not_used(
    cache: Path, source: Path, mode: int
) -> None:
    cache.mkdir(parents=True)
    cache.chmod(mode)
    assert bytecode_environment(READ_ONLY, [source]) == {}


def test_a_link_in_its_place_is_not_followed(cache: Path, source: Path, tmp_path: Path) -> None:
    cache.parent.mkdir(parents=True)
    (tmp_path / "other").mkdir(mode=0o700)
    cache.symlink_to(tmp_path / "other")
    assert bytecode_environment(READ_ONLY, [source]) == {}


def test_a_cache_that_is_no_folder_gives_none(cache: Path, source: Path) -> None:
    cache.parent.parent.write_text("", encoding="utf-8")
    assert bytecode_environment(READ_ONLY, [source]) == {}


def test_a_module_that_changed_after_it_was_compiled_is_not(source: Path) -> None:
    py_compile.compile(str(source))
    assert is_compiled(source)
    os.utime(source, (1, 1))  # as a copy of the files may do
    assert not is_compiled(source)


def test_a_module_that_was_compiled_with_a_hash_needs_no_times(source: Path) -> None:
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    py_compile.compile(str(source), invalidation_mode=mode)
    os.utime(source, (1, 1))
    assert is_compiled(source)


@pytest.mark.parametrize("left", [b"", b"\0" * 16])
def test_a_compiled_module_that_is_torn_or_of_another_python_is_none(
    source: Path, left: bytes
) -> None:
    py_compile.compile(str(source))
    Path(importlib.util.cache_from_source(str(source))).write_bytes(left)
    assert not is_compiled(source)
