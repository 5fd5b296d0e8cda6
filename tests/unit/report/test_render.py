"""The report as one file: complete, escaped and self-contained."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nlijob import records
from nlijob.records.outcome import Results
from nlijob.report.render import render
from nlijob.rundir import RunDir
from tests.html_reader import Reader
from tests.synthetic import Spec, build_run

SPECS = {
    "gpu": Spec(resumed=True),
    "cpu demo": Spec(gpu=False, demo=True),
    "classification": Spec(head="sequence-classification", base_validation=False),
    "bare": Spec(samples=False, generations=False, test_each_epoch=False, energy=False),
    "one epoch": Spec(epochs=1, rows=5, train_rows=8),
    "hostile": Spec(hostile=True),
}


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("runs")
    return {
        name: render(build_run(folder / name, spec)).read_text(encoding="utf-8")
        for name, spec in SPECS.items()
    }


@pytest.mark.parametrize("name", SPECS)
def test_elements_are_nested_and_ids_are_unique(pages: dict[str, str], name: str) -> None:
    reader = Reader(pages[name])
    ids = [attributes["id"] for _, attributes in reader.elements if "id" in attributes]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("name", SPECS)
def test_every_link_leads_to_a_place_in_the_page(pages: dict[str, str], name: str) -> None:
    reader = Reader(pages[name])
    ids = {f"#{attributes.get('id')}" for _, attributes in reader.elements}
    assert {str(link["href"]) for link in reader.tags("a")} <= ids


@pytest.mark.parametrize("name", SPECS)
def test_nothing_is_loaded_from_anywhere(pages: dict[str, str], name: str) -> None:
    for tag, attributes in Reader(pages[name]).elements:
        assert "src" not in attributes
        assert tag not in {"iframe", "object", "embed", "img"}
        for key in ("href", "xlink:href"):
            assert (attributes.get(key) or "#").startswith(("#", "data:"))


def test_the_policy_allows_only_the_pages_own_script(pages: dict[str, str]) -> None:
    (script,) = re.findall(r"<script>(.*?)</script>", pages["gpu"], flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    reader = Reader(pages["gpu"])
    (policy,) = (m["content"] for m in reader.tags("meta") if "http-equiv" in m)
    assert policy is not None
    assert "default-src 'none'" in policy
    assert f"script-src 'sha256-{digest}'" in policy


def test_rows_and_model_output_are_rendered_as_text(pages: dict[str, str]) -> None:
    reader = Reader(pages["hostile"])
    assert len(reader.tags("script")) == 1
    assert len(reader.tags("style")) == 1
    assert not [a for _, a in reader.elements if any(key.startswith("on") for key in a)]
    text = "".join(reader.text)
    for written in ("<script>throw new Error('row ran')</script>", "{{ 7 * 7 }}", "🙂👩‍👩‍👧"):
        assert written in text


def test_untrusted_text_has_its_own_direction(pages: dict[str, str]) -> None:
    hostile = pages["hostile"]
    assert '<dd dir="auto"><mark>رجل يقرأ كتابا في الحديقة</mark></dd>' in hostile


def test_the_demo_is_named_near_the_top(pages: dict[str, str]) -> None:
    demo = pages["cpu demo"]
    assert "This is the demo" in demo[: demo.index('class="verdict')]
    assert "This is the demo" not in pages["gpu"]


def test_a_run_on_the_cpu_says_so_plainly(pages: dict[str, str]) -> None:
    assert "No GPU: this job ran on the CPU." in pages["cpu demo"]
    assert "No GPU" not in pages["gpu"]


@pytest.mark.parametrize("name", SPECS)
def test_no_python_value_leaks_into_the_page(pages: dict[str, str], name: str) -> None:
    snippet = re.compile(r'<pre id="snippet">.*?</pre>', flags=re.DOTALL)
    text = "".join(Reader(snippet.sub("", pages[name])).text)
    assert not re.search(r"\bNone\b(?! of)|\bnan\b|\binf\b|Undefined|Markup\(", text)


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    run = build_run(tmp_path_factory.mktemp("run"))
    assert render(run) == run.report
    return run


def test_rendering_again_gives_the_same_bytes(rendered: RunDir) -> None:
    first = rendered.report.read_bytes()
    assert render(rendered).read_bytes() == first


def test_results_are_written_beside_the_report(rendered: RunDir) -> None:
    assert records.read(Results, rendered.results).tuned.rows == 98


def test_a_damaged_run_leaves_the_old_report_alone(rendered: RunDir, tmp_path: Path) -> None:
    run = RunDir(shutil.copytree(rendered.root, tmp_path / "run"))
    before = run.report.read_bytes()
    run.selection.write_text(json.dumps({"epoch": "three"}))
    with pytest.raises(ValueError, match="not a Selection"):
        render(run)
    assert run.report.read_bytes() == before


def test_rendering_needs_no_torch_and_no_writable_settings_folder(tmp_path: Path) -> None:
    run: RunDir = build_run(tmp_path / "run")
    code = (
        "import sys; from pathlib import Path\n"
        "from nlijob.report.render import render; from nlijob.rundir import RunDir\n"
        f"render(RunDir(Path({str(run.root)!r})))\n"
        "banned = {'torch', 'transformers', 'peft', 'datasets', 'matplotlib.pyplot'}\n"
        "assert not banned & sys.modules.keys(), banned & sys.modules.keys()\n"
    )
    blocked = tmp_path / "a file, not a folder"
    blocked.touch()
    environment = {"MPLCONFIGDIR": str(blocked), "HOME": str(blocked), "PYTHONPATH": "."}
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, env=environment, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    assert run.report.is_file()
