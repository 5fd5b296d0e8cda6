"""Deals pieces of work out to the processes of a group, each of which does its own alone.

Whoever is free takes the next piece. Nothing is exchanged meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from nlijob.gpu.folders import bring
from nlijob.gpu.session import Session

Work = Callable[[Session, str], list[Path]]
"""Does the piece of work of this name; returns the files and folders that it made, markers last."""

LEAST = 2
"""Pieces of work from which on they are dealt out."""


def is_dealt(session: Session, pieces: int) -> bool:
    """Whether the group does so many trainings by dealing them out."""
    wanted = session.whole_config.machine.share in ("auto", "trials")
    can = session.group.is_shared and not session.group.in_step
    return can and wanted and pieces >= LEAST


def deal(session: Session, order: str, names: Sequence[str], work: Work) -> None:
    """Deal out pieces of work by their names; returns when all are done.

    `order`: the order by which the others call `take_part`.
    """
    session.prepare()
    number = session.orders.next_deal()
    session.orders.give(order, session.whole_config, session.task, names, number)
    take_part(session, names, number, work)


def take_part(session: Session, names: Sequence[str], number: int, work: Work) -> None:
    """Do the next piece of work that nobody has taken, until all are done.

    `number`: the number of this deal.
    """
    group, made = session.group, list[Path]()
    with session.alone():
        while (place := group.count(f"taken/{number}")) < len(names):
            made += work(session, names[place])
        session.writer.wait()
    bring(session.run, group, session.is_elsewhere, made)
