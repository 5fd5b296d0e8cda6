"""What the parent needs to know about a task head."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the configuration imports the table of heads
    from nlijob.config import JobConfig


@dataclass(frozen=True)
class HeadDescription:
    """A head's requirements on the configuration, and its words in the report."""

    title: str
    """The head as a noun phrase, such as "classification head"."""
    task: str
    """Completes "MODEL ..., on DATA SET" in the report's subtitle."""
    reading: str
    """One sentence for the report: how the answer is read from the model."""
    snippet: str
    """Template of the usage example. `nlijob.report.snippet` lists its fields."""
    faults: Callable[[JobConfig], Iterable[str]]
    """Yields what this head requires and the configuration lacks: "section.key: what is wrong"."""
    writes_text: bool
    """Whether the model can also write free output after the prompt."""
    takes_few_shot: bool
    """Whether examples with their answers can stand before the prompt."""
    unquantized_modules: tuple[str, ...] = ()
    """Names that model classes give a new head, which cannot be loaded in 4 bits."""
