"""The table of measured runs at the head of benchmarks/results/README.md.

    python -m benchmarks.table

writes it anew from the files of results beside it; another folder can be given.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.figures import NOT_RECORDED, Row, rows_of_folder

RESULTS = Path(__file__).parent / "results"
BEGIN = "<!-- table of measured runs: python -m benchmarks.table -->"
END = "<!-- end of the table -->"
EMPTY = f"# Measured runs\n\n{BEGIN}\n{END}\n"
HEADINGS = (
    "setting",
    "mode",
    "measured",
    "share of the matrix rate",
    "limit, examples/s",
    "card",
    "date and file",
    "versions",
    "command",
)


def main() -> None:
    """Write the table anew."""
    write_table(Path(sys.argv[1]) if sys.argv[1:] else RESULTS)


def write_table(folder: Path) -> None:
    """Replace the table in the folder's README.md, or begin one."""
    page = folder / "README.md"
    text = page.read_text(encoding="utf-8") if page.is_file() else EMPTY
    page.write_text(with_table(text, rows_of_folder(folder)), encoding="utf-8")


def with_table(page: str, rows: Sequence[Row]) -> str:
    """The page with a table of these rows between its two marks.

    Raises:
        ValueError: the page lacks a mark.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page lacks {BEGIN} or {END}")
    return "".join([before, BEGIN, "\n", *table(rows), END, after])


def table(rows: Sequence[Row]) -> Iterator[str]:
    """The table's lines, and the versions and commands that it names by letter and number."""
    versions = _distinct([row.versions for row in rows])
    commands = _distinct([row.command for row in rows])
    yield _line(HEADINGS)
    yield _line(["---"] * len(HEADINGS))
    for row in rows:
        yield _line(
            [
                row.setting,
                row.mode,
                row.measured,
                row.share,
                row.limit,
                row.card,
                f"[{row.date}]({row.file})",
                _letter(versions, row.versions),
                _number(commands, row.command),
            ]
        )
    yield "\nVersions:\n\n"
    yield from (f"- {_letter(versions, known)}: {known}\n" for known in versions)
    yield "\nCommands:\n\n"
    yield from (f"- {_number(commands, known)}: `{known}`\n" for known in commands)


def _distinct(texts: Sequence[str]) -> list[str]:
    """The texts in the order of their first use, each once."""
    return [text for text in dict.fromkeys(texts) if text != NOT_RECORDED]


def _letter(versions: Sequence[str], known: str) -> str:
    return chr(ord("A") + versions.index(known)) if known in versions else NOT_RECORDED


def _number(commands: Sequence[str], known: str) -> str:
    return str(1 + commands.index(known)) if known in commands else NOT_RECORDED


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


if __name__ == "__main__":
    main()
