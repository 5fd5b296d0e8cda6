"""Optional libraries look absent to others while the GPU side starts, and never stop its start."""

from __future__ import annotations

import gc
import importlib
import os
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from nlijob.gpu import imports
from nlijob.gpu.imports import NO_COMPILER, hidden, imported, lean_imports
from nlijob.surroundings import ALL_LIBRARIES

OPTIONAL = "optional_of_a_test"
USES = f"""
from importlib.util import find_spec
saw = find_spec("{OPTIONAL}") is not None
"""
NEEDS = f"import {OPTIONAL} as needed\n"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of modules, of which one is a library that is hidden."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(imports, "HIDDEN", {OPTIONAL: "tests"})
    monkeypatch.delenv(ALL_LIBRARIES, raising=False)
    for name in (OPTIONAL, "library_of_a_test"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    (tmp_path / f"{OPTIONAL}.py").write_text("", encoding="utf-8")
    return tmp_path


def library(installed: Path, source: str) -> object:
    """A library of this source, as the GPU side imports it."""
    (installed / "library_of_a_test.py").write_text(source, encoding="utf-8")
    return imported(lambda: importlib.import_module("library_of_a_test"))


def test_an_optional_library_looks_absent_and_is_found_afterwards(installed: Path) -> None:
    assert vars(library(installed, USES))["saw"] is False
    assert find_spec(OPTIONAL) is not None


def test_an_optional_library_that_is_broken_ends_no_start(installed: Path) -> None:
    (installed / f"{OPTIONAL}.py").write_text("raise RuntimeError('for another torch')")
    uses = f"{USES}if saw:\n    import {OPTIONAL}\n"
    assert vars(library(installed, uses))["saw"] is False


def test_a_library_that_cannot_do_without_it_is_imported_as_usual(installed: Path) -> None:
    assert vars(library(installed, NEEDS))["needed"] is sys.modules[OPTIONAL]


def test_nothing_is_hidden_from_code_that_comes_with_a_model(
    installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ALL_LIBRARIES, "1")
    assert vars(library(installed, USES))["saw"] is True


def test_a_library_that_is_imported_already_stays(installed: Path) -> None:
    before = importlib.import_module(OPTIONAL)
    with hidden():
        assert importlib.import_module(OPTIONAL) is before
    assert sys.modules[OPTIONAL] is before


@pytest.mark.usefixtures("installed")
def test_an_import_that_fails_says_why() -> None:
    with pytest.raises(ModuleNotFoundError, match="nowhere_to_be_found"):
        imported(lambda: importlib.import_module("nowhere_to_be_found"))


@pytest.mark.parametrize("of_the_user", [None, "0"])
def test_what_holds_for_imports_ends_with_them(
    monkeypatch: pytest.MonkeyPatch, of_the_user: str | None
) -> None:
    if of_the_user is None:
        monkeypatch.delenv(NO_COMPILER, raising=False)
    else:
        monkeypatch.setenv(NO_COMPILER, of_the_user)
    with lean_imports():
        assert not gc.isenabled()
    assert gc.isenabled()
    assert os.environ.get(NO_COMPILER) == of_the_user
