"""Reads the project's Markdown: code blocks, shell commands, links, headings."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path


def blocks(page: Path, language: str) -> list[str]:
    """The text of the page's code blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text("utf-8"), re.M | re.S)


def shell_commands(page: Path) -> Iterator[list[str]]:
    """The commands of the page's shell blocks, as words."""
    for block in blocks(page, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            if words := shlex.split(line, comments=True):
                yield words


def prose(page: Path) -> str:
    """The page's text without its code blocks."""
    return re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.M | re.S)


def links(page: Path) -> set[str]:
    """The targets of the page's links and images that are not on the web."""
    targets = re.findall(r"\]\(([^)\s]+)\)", prose(page))
    return {target for target in targets if not re.match(r"https?:|mailto:", target)}


def code_spans(page: Path) -> set[str]:
    """The page's inline code."""
    return set(re.findall(r"`([^`\n]+)`", prose(page)))


def anchors(page: Path) -> set[str]:
    """The names by which links reach the page's headings."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def section(page: Path, heading: str) -> str:
    """The text under a heading of the second level, to the next one."""
    match = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", prose(page), re.M | re.S)
    assert match, f"{page.name} has no heading {heading!r}"
    return match[1]


def table(text: str) -> list[list[str]]:
    """The cells of every table row in a text, without the rows of dashes."""
    rows = re.findall(r"^\|(.*)\|$", text, re.M)
    cells = [[c.strip().replace("\\|", "|") for c in re.split(r"(?<!\\)\|", row)] for row in rows]
    return [row for row in cells if not all(re.fullmatch(r":?-+:?", cell) for cell in row)]
