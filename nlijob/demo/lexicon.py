"""The words of the demo's little world, read from words.txt.

A `[section]` of the file is the table of one slot of a scene. Each of its lines is a chain that
names one idea from specific to general: `>` leads to a hypernym, and `/` separates words that mean
the same. The text before `|` is the chain's group. Two chains of one group exclude each other (a
man is not a woman); chains of different groups do not (a man may be a baker). An action's group
says where it happens: in, out or any. In the section `verbs`, the text after `|` is the verb seen
from the other side, or `=` for a symmetric verb.
"""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Chain:
    """One idea: `levels` from specific to general, each a tuple of words that mean the same."""

    group: str
    levels: tuple[tuple[str, ...], ...]

    @property
    def names(self) -> frozenset[str]:
        """Each level's first word. Two chains meet at a level whose name they share."""
        return frozenset(level[0] for level in self.levels)


@dataclass(frozen=True)
class Verb:
    """Something that one does to another; `converses` say the same from the other's side.

    A symmetric verb holds in both directions (talking with), so it is its own converse.
    """

    active: str
    converses: tuple[str, ...]
    symmetric: bool


def _read_sections(path: Path) -> dict[str, list[tuple[str, str]]]:
    """The lines of each section, split at `|`."""
    blocks = path.read_text(encoding="utf-8").split("\n\n")
    sections = (block.splitlines() for block in blocks if block.startswith("["))
    return {
        title.strip("[]"): [line.partition(" | ")[::2] for line in lines]
        for title, *lines in sections
    }


def _levels(chain: str) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(word.strip() for word in level.split("/")) for level in chain.split(">"))


def _verb(active: str, converse: str) -> Verb:
    if converse == "=":
        return Verb(active, (active,), True)
    return Verb(active, tuple(converse.split("/")), False)


_sections = _read_sections(Path(__file__).parent / "words.txt")
IRREGULAR_PLURALS = dict(_sections.pop("irregular plurals"))
VERBS = tuple(_verb(*line) for line in _sections.pop("verbs"))
TABLES = {
    slot: tuple(Chain(group, _levels(chain)) for group, chain in lines)
    for slot, lines in _sections.items()
}
"""Slot of a scene -> its chains in the file's order; "animal agent" and so on for animals."""
ONE = TABLES["number"][0]
