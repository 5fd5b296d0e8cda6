"""Writes the table of families in docs/models.md from what tiny models of them do.

    python -m tools.model_table

It takes a minute. `tests/unit/gpu/test_families.py` compares each line with what it finds itself.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from nlijob.gpu.model import quiet_libraries
from tests.families import FAMILIES, HEADS, line, new_bench, outcome

PAGE = Path(__file__).parent.parent / "docs" / "models.md"
BEGIN = "<!-- Generated from tests/families.py: python -m tools.model_table -->\n"
END = "<!-- End of the generated part -->\n"
COLUMNS = ("family", "head", "LoRA adapts", "not in 4 bits", "rows", "agreement")
HEADER = f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|\n"


def main() -> None:
    """Replace the generated part of the page."""
    quiet_libraries()
    torch.set_num_threads(1)  # more would only wait for each other on models so small
    with tempfile.TemporaryDirectory() as folder:
        bench = new_bench(Path(folder))
        lines = [line(f, head, outcome(f, head, bench)) for f in FAMILIES for head in HEADS]
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    table = HEADER + "".join(f"{text}\n" for text in lines)
    PAGE.write_text(f"{before}{BEGIN}{table}{END}{after}", encoding="utf-8")


def documented() -> set[str]:
    """The lines of the table on the page."""
    _, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    return set(rest.partition(END)[0].removeprefix(HEADER).splitlines())


if __name__ == "__main__":
    main()
