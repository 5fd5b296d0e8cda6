"""What the documents tell readers to type, write and open exists: nothing is run."""

from __future__ import annotations

import importlib.util
import re
import shlex
import tomllib
from collections.abc import Iterator, Sequence
from itertools import takewhile
from pathlib import Path

import click
import pytest
from click.shell_completion import get_completion_class

from benchmarks import suite
from nlijob.cli import cli
from nlijob.config import load_config, parse_assignment
from nlijob.recipe import recipe_names
from tests import markdown
from tests.deploy.files import job_variables
from tests.docs.pages import PAGE_NAMES, PAGES
from tests.jobs import ROOT

MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
IMAGES = ("nlijob", "nlijob:cpu")
TOP_LEVEL = {path.name for path in ROOT.iterdir()}

every_page = pytest.mark.parametrize("page", PAGES, ids=PAGE_NAMES)


# ---------------------------------------------------------------- shell


@every_page
def test_shell_commands_can_be_typed(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in job_variables():
        monkeypatch.delenv(name, raising=False)
    in_text = [shlex.split(s) for s in markdown.code_spans(page) if re.match("(make|nlijob) ", s)]
    for words in (*markdown.shell_commands(page), *in_text):
        for command in pipeline(words):
            check(command)


def pipeline(words: Sequence[str]) -> Iterator[list[str]]:
    """The commands of a line, without variables set in front and files written behind."""
    command: list[str] = []
    for word in (*takewhile(lambda word: word != ">", words), ";"):
        if word in ("|", "&&", ";"):
            yield command
            command = []
        elif command or not re.match(r"\w+=", word):
            command.append(word)


def check(words: Sequence[str]) -> None:
    """Fail on a command whose target, option, file or image does not exist."""
    program, *rest = words
    checks = {
        "make": check_make,
        "nlijob": check_job,
        "docker": check_docker,
        "pip": check_pip,
        ".venv/bin/pip": check_pip,
        "python": check_python,
        ".venv/bin/python": check_python,
        "git": check_git,
        "torchrun": check_torchrun,
    }
    if program in ("eval", "source"):
        return  # shell completion: see the test of it below
    assert program in checks, f"nothing checks commands like {shlex.join(words)}"
    checks[program](rest)


def check_job(arguments: Sequence[str]) -> None:
    """Parse the arguments of nlijob as it does, and its configuration as far as it is given."""
    try:
        context = cli.make_context("nlijob", list(arguments))
        name, *rest = [*context._protected_args, *context.args]
        command = cli.get_command(context, name)
        assert command, f"no command {name}"
        params = command.make_context(name, rest, parent=context).params
    except click.exceptions.Exit:  # --help and --version end here
        return
    recipe = params.get("recipe", "phi2")
    if not recipe.endswith(".toml"):  # a file would be the reader's own
        assert recipe in recipe_names()
        load_config(recipe, dict(parse_assignment(text) for text in params.get("assignments", ())))


def check_torchrun(arguments: Sequence[str]) -> None:
    from torch.distributed.run import get_args_parser

    given = get_args_parser().parse_args(arguments)
    assert (ROOT / given.training_script).is_file()
    check_job(given.training_script_args)


def check_make(arguments: Sequence[str]) -> None:
    variables = dict(word.split("=", 1) for word in arguments if "=" in word)
    targets = [word for word in arguments if "=" not in word]
    for target in targets:
        assert re.search(rf"^{target}:.*##", MAKEFILE, re.M), f"no target {target}"
    for variable in variables:
        assert re.search(rf"\$\({variable}\)|ifdef {variable}\b", MAKEFILE), f"no {variable}"
    if "RECIPE" in variables:
        assert variables["RECIPE"] in recipe_names()
    if "IMAGE" in variables:
        assert variables["IMAGE"] in IMAGES
    given = shlex.split(variables.get("ARGS", ""))
    if targets in (["report"], ["run"]):
        check_job(["run", *given])
    elif targets == ["bench"]:
        suite.options_of(given)
    else:
        paths = [word.partition("::")[0] for word in given if word.startswith("tests/")]
        assert all((ROOT / path).exists() for path in paths), paths


def check_docker(arguments: Sequence[str]) -> None:
    kind, *rest = arguments
    if kind == "compose":
        assert (ROOT / rest[rest.index("-f") + 1]).is_file()
        if "job" in rest:
            check_job(["run", *rest[rest.index("job") + 1 :]])
    elif kind == "build":
        dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
        for word in rest:
            name, is_set, _ = word.partition("=")
            assert not is_set or re.search(rf"^ARG {name}\b", dockerfile, re.M), word
    else:
        assert kind == "run"
        before = list(takewhile(lambda word: word not in IMAGES, rest))
        assert len(before) < len(rest), "no image of this project"
        check_job(rest[len(before) + 1 :] or ["run"])


def check_pip(arguments: Sequence[str]) -> None:
    command, *rest = arguments
    assert command == "install"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for word in rest:
        if extra := re.search(r"\[([\w,]+)\]", word):
            assert set(extra[1].split(",")) <= set(project["optional-dependencies"])


def check_python(arguments: Sequence[str]) -> None:
    first, *rest = arguments
    if first == "entrypoint.py":
        check_job(rest)
    else:
        assert first == "-m"
        assert importlib.util.find_spec(rest[0]), rest[0]


def check_git(arguments: Sequence[str]) -> None:
    assert arguments[0] in ("clone", "tag", "push", "switch")


def test_completion_is_for_shells_that_click_knows() -> None:
    text = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    shells = re.findall(r"_NLIJOB_COMPLETE=(\w+)_source nlijob", text)
    assert len(shells) == 3
    assert all(get_completion_class(shell) for shell in shells)


# ---------------------------------------------------------------- recipes, Python, files


@every_page
def test_recipes_can_be_read(page: Path, tmp_path: Path) -> None:
    for number, block in enumerate(markdown.blocks(page, "toml")):
        recipe = tmp_path / f"{number}.toml"
        recipe.write_text(block, encoding="utf-8")
        load_config(str(recipe))


@every_page
def test_python_can_be_compiled(page: Path) -> None:
    for block in markdown.blocks(page, "python"):
        compile(block, str(page), "exec")


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    for link in markdown.links(page):
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), link
        assert not anchor or anchor in markdown.anchors(target), link


@every_page
def test_files_and_tests_that_are_named_exist(page: Path) -> None:
    for span in markdown.code_spans(page):
        path, _, test = span.partition("::")
        if path.partition("/")[0] not in TOP_LEVEL or not re.fullmatch(r"[\w./-]*/[\w./-]*", path):
            continue
        if path.startswith(("runs/", "build/")):
            continue
        assert (ROOT / path).exists(), span
        if test:
            assert f"def {test}(" in (ROOT / path).read_text(encoding="utf-8"), span


@every_page
def test_variables_are_options_of_the_job(page: Path) -> None:
    named = set(re.findall(r"\bNLIJOB_[A-Z_]+", page.read_text("utf-8")))
    assert named - {"NLIJOB_COMPLETE"} <= job_variables()


def test_classes_that_how_it_works_names_exist() -> None:
    source = "".join(path.read_text("utf-8") for path in (ROOT / "nlijob").rglob("*.py"))
    spans = markdown.code_spans(ROOT / "docs" / "how-it-works.md")
    named = {span for span in spans if re.fullmatch(r"[A-Z]\w*[a-z]\w*", span)}
    assert len(named) > 5
    assert all(f"class {name}" in source for name in named), named
