"""Environment variables that look like the job's own and are none."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nlijob.commands.variables import check_variables, known_variables
from nlijob.errors import ConfigurationError, ExitCode
from tests.jobs import ROOT


def fault(**environment: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        check_variables(environment)
    assert caught.value.exit_code == ExitCode.CONFIGURATION
    return caught.value.message


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("NLIJOB_EPOCS", "did you mean NLIJOB_EPOCHS?"),
        ("nlijob_epochs", "did you mean NLIJOB_EPOCHS?"),
        ("NLIJOB_TRAIN", "did you mean NLIJOB_TRAIN_SIZE or NLIJOB_TRAIN_STRIDE or NLIJOB_TRACK?"),
        ("NLIJOB_MODEL_NAME", "did you mean NLIJOB_MODEL?"),
        ("NLIJOB_LORA_R", 'set NLIJOB_SET="lora.r=VALUE"'),
        ("NLIJOB_TEMPLATE", 'set NLIJOB_SET="prompt.template=VALUE"'),
        ("NLIJOB_QXZ", "no option has this name"),
    ],
)
def test_an_unknown_variable_is_refused_with_the_nearest_names(name: str, advice: str) -> None:
    message = fault(**{name: "3"})
    assert message.startswith(f"environment variable {name}: ")
    assert message.endswith(advice)


def test_all_unknown_variables_are_named_and_no_value() -> None:
    message = fault(NLIJOB_EPOCS="s3cret", NLIJOB_SEEDZ="s3cret", NLIJOB_EPOCHS="3")
    assert "NLIJOB_EPOCS" in message
    assert "NLIJOB_SEEDZ" in message
    assert "s3cret" not in message


@pytest.mark.parametrize("value", ["0.5", "soon", "-1"])
def test_a_time_limit_that_the_clients_library_cannot_read_is_refused(value: str) -> None:
    assert "HF_HUB_DOWNLOAD_TIMEOUT" in fault(HF_HUB_DOWNLOAD_TIMEOUT=value)


def test_known_and_empty_variables_and_those_of_others_are_accepted() -> None:
    check_variables(dict.fromkeys(known_variables(), "1"))
    check_variables({"NLIJOB_EPOCS": "", "_NLIJOB_COMPLETE": "bash_source", "XNLIJOB_A": "1"})


@pytest.mark.parametrize(
    "name",
    [
        "NLIJOB_SERVICE_HOST",
        "NLIJOB_REPORTS_SERVICE_PORT",
        "NLIJOB_REPORTS_SERVICE_PORT_HTTP",
        "NLIJOB_PORT",
        "NLIJOB_REPORTS_PORT_8080_TCP",
        "NLIJOB_REPORTS_PORT_8080_TCP_ADDR",
    ],
)
def test_what_a_cluster_sets_for_a_service_of_this_name_is_accepted(name: str) -> None:
    check_variables({name: "tcp://10.0.0.1:80"})


@pytest.mark.parametrize(
    "place", ["Dockerfile", "compose.gpu.yml", "deploy", "tools", "Makefile", ".ci", "docs"]
)
def test_files_of_the_project_name_known_variables_only(place: str) -> None:
    root = ROOT / place
    files = [root] if root.is_file() else [path for path in root.rglob("*") if path.is_file()]
    named = {name for file in files for name in _variables_in(file)}
    assert named <= {*known_variables(), "NLIJOB_COMPLETE"}


def _variables_in(file: Path) -> list[str]:
    return re.findall(r"NLIJOB_[A-Z_]+", file.read_text("utf-8", errors="replace"))
