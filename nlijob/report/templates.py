"""Renders a template as a page that needs nothing but itself: one HTML file."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from nlijob.printable import printable

PACKAGE = Path(__file__).parents[1]
TEMPLATES = next(
    folder for folder in (PACKAGE / "templates", PACKAGE.parent / "templates") if folder.is_dir()
)
"""Inside the installed package; beside it in a checkout."""
STYLES = ("base", "first-screen", "facts", "tables", "charts", "cases", "code", "print")
"""Where two parts say something of one element, the later one holds."""


def render_page(
    template: str,
    page: object,
    plots: Mapping[str, object],
    linked: Callable[[str], Markup] = escape,
) -> str:
    """Render a template of `templates/` with charts, style and script inlined.

    Text in `page` is escaped; `plots` are charts by name. The template also gets `style`, `script`
    and `script_hash` (for the Content-Security-Policy), and the filter `terms`: `linked` escapes a
    text and links its terms, where the page has a glossary.
    """
    script = page_script()
    return (
        _environment(linked)
        .get_template(template)
        .render(
            page=page,
            plots=plots,
            style=Markup(page_style()),
            script=Markup(script),
            script_hash=_csp_hash(script),
        )
    )


def page_style() -> str:
    """The parts of `templates/styles/` that every page has, in the order of `STYLES`."""
    files = (TEMPLATES / "styles" / f"{name}.css" for name in STYLES)
    return "\n".join(file.read_text(encoding="utf-8") for file in files)


def page_script() -> str:
    """All of `templates/scripts/`, each file in a scope of its own, so that no name meets another.

    A script does nothing on a page that lacks the elements it is about.
    """
    files = sorted((TEMPLATES / "scripts").glob("*.js"))
    parts = (f"{{\n{file.read_text(encoding='utf-8')}}}\n" for file in files)
    return '"use strict";\n' + "".join(parts)


def _environment(linked: Callable[[str], Markup]) -> Environment:
    # Autoescape by file name would not cover *.html.j2, so it is always on.
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_without_control_characters,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["terms"] = lambda text: linked(_without_control_characters(text))
    return environment


def _without_control_characters(value: Any) -> Any:
    """A value that a template prints; HTML has no way to write control characters."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return printable(value)
    return value


def _csp_hash(script: str) -> str:
    digest = hashlib.sha256(script.encode("utf-8")).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"
