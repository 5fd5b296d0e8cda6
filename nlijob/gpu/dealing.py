"""Deals pieces of work out to the processes of a group, each of which does its own alone.

Whoever is free takes the next piece. Nothing is exchanged meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nlijob.gpu.session import Session

LEAST = 2
"""Pieces of work from which on they are dealt out."""


def is_dealt(session: Session, pieces: int) -> bool:
    """Whether the group does so many trainings by dealing them out."""
    wanted = session.whole_config.machine.share in ("auto", "trials")
    return session.group.is_shared and wanted and pieces >= LEAST


def deal(session: Session, order: str, names: Sequence[str], work: Callable[[str], None]) -> None:
    """Deal out pieces of work by their names; returns when all are done.

    `order`: the follower's counterpart of this call, which takes part by `take_part`.
    """
    session.prepare()
    number = session.next_number()
    session.share_out(order, names, number)
    take_part(session, names, number, work)


def take_part(
    session: Session, names: Sequence[str], number: int, work: Callable[[str], None]
) -> None:
    """Do the next piece of work that nobody has taken, until all are done.

    `number`: the number of this distribution of work.
    """
    group = session.group
    with session.alone():
        while (place := group.count(f"taken/{number}")) < len(names):
            work(names[place])
        session.writer.wait()
    group.gather(None)
