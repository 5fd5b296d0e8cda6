"""Where modules are not compiled and cannot be, the GPU side is given a place to keep them."""

from __future__ import annotations

import importlib.util
import os
import py_compile
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nlijob import bytecode
from nlijob.bytecode import (
    DONT_WRITE,
    PREFIX,
    bytecode_environment,
    compile_ahead,
    end_compiling,
    is_compiled,
    use_place,
)

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


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that many cores may compile, with a folder of tests."""
    folder = tmp_path / "package_of_a_test"
    for name in ("__init__.py", "inner/__init__.py", "tests/__init__.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("value = 1\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(bytecode, "PACKAGES", (folder.name,))
    monkeypatch.setattr(bytecode, "COMPILED", ("nowhere_to_be_found", folder.name))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8))
    monkeypatch.setattr(bytecode, "MOST_CORES", 1)
    return folder


def test_a_new_place_is_filled_ahead_of_the_imports(
    cache: Path, source: Path, package: Path
) -> None:
    place = bytecode_environment(READ_ONLY, [source])
    compiling = compile_ahead(place, {**os.environ, **READ_ONLY})
    assert compiling is not None
    assert compiling.wait() == 0
    end_compiling(compiling)  # it has ended
    filled = {one.parent.name for one in cache.rglob("*.pyc") if package.name in one.parts}
    assert filled == {package.name, "inner"}
    assert compile_ahead(place, dict(os.environ)) is None  # it is not new any more


def test_compiling_ends_with_the_gpu_side(cache: Path, source: Path, package: Path) -> None:
    place = bytecode_environment(READ_ONLY, [source])
    compiling = compile_ahead(place, dict(os.environ))
    assert compiling is not None
    end_compiling(compiling)
    assert compiling.returncode in (0, -signal.SIGKILL)


@pytest.mark.usefixtures("package")
def test_nothing_is_compiled_ahead_where_there_is_no_new_place() -> None:
    assert compile_ahead({}, dict(os.environ)) is None


def test_few_cores_are_left_to_the_imports(
    cache: Path, source: Path, package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bytecode, "FEWEST_CORES", 10**6)
    place = bytecode_environment(READ_ONLY, [source])
    assert compile_ahead(place, dict(os.environ)) is None


def test_the_command_uses_the_place_of_its_gpu_side(
    cache: Path, source: Path, package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DONT_WRITE, "1")
    monkeypatch.delenv(PREFIX, raising=False)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    use_place()
    assert (sys.pycache_prefix, sys.dont_write_bytecode) == (str(cache), False)
    assert bytecode_environment(READ_ONLY) == {PREFIX: str(cache), DONT_WRITE: ""}


def test_a_command_whose_libraries_are_compiled_changes_nothing(
    cache: Path, package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in package.glob("*.py"):
        py_compile.compile(str(module))
    monkeypatch.setenv(DONT_WRITE, "1")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    use_place()
    assert (sys.pycache_prefix, sys.dont_write_bytecode) == (None, True)
