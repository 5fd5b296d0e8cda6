"""The guides in deploy/ name only what exists, and calculate costs correctly."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.deploy.files import DEPLOY, ROOT, job_variables
from tests.deploy.test_aws_batch import input_shape
from tests.markdown import shell_commands

READMES = sorted(DEPLOY.glob("*/README.md"))
WITHOUT_IMAGE = ("slurm",)
WITHOUT_COSTS = ("kubernetes-hosts", "slurm")
"""Guides to several hosts: what a run costs there was not measured."""
GLOBAL_AWS_OPTIONS = {"--cli-input-json"}


@pytest.fixture(params=READMES, ids=lambda path: path.parent.name)
def readme(request: pytest.FixtureRequest) -> Path:
    path = request.param
    assert isinstance(path, Path)
    return path


def test_every_platform_has_a_guide() -> None:
    assert [path.parent for path in READMES] == sorted(p for p in DEPLOY.iterdir() if p.is_dir())


def test_guide_is_one_page(readme: Path) -> None:
    assert len(readme.read_text("utf-8").splitlines()) <= 80


def test_variables_are_options_of_the_job(readme: Path) -> None:
    assert set(re.findall(r"NLIJOB_\w+", readme.read_text("utf-8"))) <= job_variables()


def test_files_exist(readme: Path) -> None:
    text = readme.read_text("utf-8")
    named = set(re.findall(r"deploy/[\w./-]+\.(?:json|yaml|sbatch)", text))
    assert all((ROOT / name).is_file() for name in named), named
    links = set(re.findall(r"\]\(([^)#]+)\)", text)) | set(re.findall(r"file://([\w.-]+)", text))
    assert all((readme.parent / name).is_file() for name in links), links
    beside = set(re.findall(r"`([\w-]+\.(?:json|yaml|sbatch))`", text))
    assert beside
    assert all((readme.parent / name).is_file() for name in beside), beside


def test_make_targets_and_build_arguments_exist(readme: Path) -> None:
    makefile, dockerfile = ((ROOT / n).read_text("utf-8") for n in ("Makefile", "Dockerfile"))
    targets = [words[1] for words in shell_commands(readme) if words[0] == "make"]
    assert targets
    assert all(re.search(rf"^{target}:", makefile, re.M) for target in targets)
    for name in re.findall(r"--build-arg (\w+)=", readme.read_text("utf-8")):
        assert re.search(rf"^ARG {name}\b", dockerfile, re.M)


def test_image_of_the_guide_is_the_image_of_the_job(readme: Path) -> None:
    if readme.parent.name in WITHOUT_IMAGE:
        assert not list(readme.parent.glob("*.yaml"))
        return
    (image,) = [words[2] for words in shell_commands(readme) if words[:2] == ["docker", "push"]]
    files = [p for p in readme.parent.iterdir() if p.suffix in (".json", ".yaml")]
    named = {m for p in files for m in re.findall(r"[\w./-]+/nlijob:\w+", p.read_text("utf-8"))}
    assert named == {image}


def test_aws_commands_have_the_options_of_the_service_model() -> None:
    seen = 0
    for words in shell_commands(DEPLOY / "aws-batch" / "README.md"):
        if words[0] != "aws":
            continue
        operation = "".join(part.title() for part in words[2].split("-"))
        members = input_shape(words[1], operation).members
        known = {"--" + re.sub(r"(?<!^)(?=[A-Z])", "-", name).lower() for name in members}
        used = {word for word in words if word.startswith("--")}
        assert used <= known | GLOBAL_AWS_OPTIONS, words
        seen += 1
    assert seen == 5


def test_costs_are_calculated_correctly(readme: Path) -> None:
    if readme.parent.name in WITHOUT_COSTS:
        assert "cost" not in readme.read_text("utf-8")
        return
    sums = re.findall(r"P × (\d+) / 3600 = (\d+\.\d+) × P", readme.read_text("utf-8"))
    assert len(sums) == 2
    for seconds, share in sums:
        assert f"{int(seconds) / 3600:.3f}" == share
    assert "21.9 s" in (ROOT / "benchmarks" / "results" / "README.md").read_text("utf-8")
