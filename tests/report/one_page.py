"""A page of tables and charts alone, and what a browser saves from a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import axe_playwright_python
from jinja2 import Environment, FileSystemLoader
from markupsafe import escape

import nlijob
from nlijob.report.chart_drawing import Plot
from nlijob.report.templates import render_page
from nlijob.report.view.parts import Table
from tests.report.browser import Tab

PAGE = """{% extends "base.html.j2" %}
{% import "macros.html.j2" as ui %}
{% block contents %}{{ ui.contents("made for a test", []) }}{% endblock %}
{% block main %}
<h1>{{ page.title }}</h1>
{% for table in page.tables %}
<section id="t{{ loop.index }}">{{ ui.table(table) }}</section>
{% endfor %}
{% for name in plots %}
<section id="{{ name }}">{{ ui.chart(plots, name) }}</section>
{% endfor %}
{% endblock %}"""


def write_page(path: Path, tables: Sequence[Table], plots: Mapping[str, Plot] = {}) -> str:
    """Write a page with the styles and the scripts of a report; returns its address."""
    folder = Path(nlijob.__file__).parents[1] / "templates"
    own = Environment(loader=FileSystemLoader(folder), autoescape=True, trim_blocks=True)
    own.filters["terms"] = escape
    page = SimpleNamespace(title="One page", tables=tables, footer="made for a test")
    template: Any = own.from_string(PAGE)  # stands for its name wherever jinja2 looks one up
    path.write_text(render_page(template, page=page, plots=plots), encoding="utf-8")
    return path.as_uri()


def saved(tab: Tab, press: str, folder: Path) -> Path:
    """The file that the page saves when an element, given by an expression, is clicked."""
    folder.mkdir(exist_ok=True)
    tab.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
    tab.events.clear()
    tab.evaluate(f"({press}).click()")
    while "completed" not in [
        event["params"]["state"]
        for event in tab.events
        if event["method"] == "Page.downloadProgress"
    ]:
        tab.evaluate("new Promise((done) => setTimeout(done, 10))")
    (begun,) = [event for event in tab.events if event["method"] == "Page.downloadWillBegin"]
    return folder / str(begun["params"]["suggestedFilename"])


def all_faults(tab: Tab) -> list[list[str]]:
    """Everything that axe-core finds: the rule and the element of each fault."""
    axe = Path(axe_playwright_python.__file__).with_name("axe.min.js")
    tab.evaluate(axe.read_text(encoding="utf-8") + "; 0")
    found: list[list[str]] = tab.evaluate(
        """axe.run(document).then(({ violations }) =>
            violations.flatMap(({ id, nodes }) => nodes.map(({ html }) => [id, html])))"""
    )
    return found
