"""Reads recipes: TOML files that may build on one another."""

from __future__ import annotations

import difflib
import os
import tomllib
from pathlib import Path
from typing import Any

from nlijob.errors import ConfigurationError

RECIPES_DIR = Path(__file__).parent / "recipes"
LARGEST_BYTES = 1_000_000
"""A recipe is a page of text; a larger file is another one, named by mistake."""


def recipe_names() -> list[str]:
    """Return the names of the built-in recipes, sorted."""
    return sorted(path.stem for path in RECIPES_DIR.glob("*.toml"))


def recipe_name(recipe: str) -> str:
    """Return a short name for a recipe, which is given by name or file."""
    return Path(recipe).stem


def read_recipe(recipe: str) -> dict[str, Any]:
    """Return the tables of a recipe and of those it builds on. Raises ConfigurationError."""
    return _read(_path(recipe), ())


def drop_other_size(table: dict[str, Any], section: str, key: str) -> None:
    """Drop a split's stride and size before one of them is set, as the two exclude each other."""
    if section == "data" and key.endswith(("_stride", "_size")):
        split = key.rpartition("_")[0]
        table.pop(f"{split}_stride", None)
        table.pop(f"{split}_size", None)


def _read(path: Path, before: tuple[Path, ...]) -> dict[str, Any]:
    if path.resolve() in before:
        raise ConfigurationError(
            f"recipe {path} extends itself", "remove one `extends` from the cycle"
        )
    tables = _tables(path)
    parent = tables.pop("extends", None)
    if parent is None:
        return tables
    base = _read(_extended(parent, path), (*before, path.resolve()))
    for section, value in tables.items():
        of_base = base.get(section)
        if isinstance(value, dict) and isinstance(of_base, dict):
            for key in value:
                drop_other_size(of_base, section, key)
            value = {**of_base, **value}
        base[section] = value
    return base


def _tables(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_BYTES + 1)
        if len(content) > LARGEST_BYTES:
            raise ConfigurationError(
                f"{path}: larger than {LARGEST_BYTES // 1000} kB, so it is not a recipe"
            )
        return tomllib.loads(content.decode("utf-8"))
    except OSError as error:
        raise ConfigurationError(f"recipe {path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # also numbers of too many digits
        raise ConfigurationError(f"{path}: not valid TOML: {error}") from error


def _extended(parent: object, path: Path) -> Path:
    """The file of the recipe that the one at `path` extends.

    It may lie in the same folder or below, so that a recipe from elsewhere reads no other files.
    """
    if not isinstance(parent, str):
        raise ConfigurationError(
            f"{path}: extends: expected the name of a recipe or a file, got {parent!r}"
        )
    leaves = os.path.isabs(parent) or os.path.normpath(parent).split(os.sep)[0] == ".."
    if leaves and Path(parent).suffix == ".toml":
        raise ConfigurationError(
            f"{path}: extends: {parent!r} is outside the recipe's folder",
            "name a recipe that comes with the job, or put the file beside this one",
        )
    return _path(parent, path.parent)


def _path(recipe: str, folder: Path = Path()) -> Path:
    """Return a recipe's file. `folder` is that of the recipe that extends it."""
    path = folder / recipe
    if path.suffix == ".toml":
        if _is_file(path):
            return path
        raise ConfigurationError(
            f"recipe file {recipe!r} is not a file"
            if os.path.lexists(path)
            else f"recipe file {recipe!r} does not exist"
        )
    names = recipe_names()
    if recipe in names:
        return RECIPES_DIR / f"{recipe}.toml"
    close = difflib.get_close_matches(recipe, names, n=1)
    raise ConfigurationError(
        f"unknown recipe {recipe!r}; known: {', '.join(names)}",
        f"did you mean {close[0]!r}?"
        if close
        else "give one of these names or the path of a .toml file",
    )


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long, or a folder that may not be entered
        return False
