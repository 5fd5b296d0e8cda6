"""What the other processes of a group do: the lead's orders, one after the other, until it ends.

An order is a name and values. The lead gives it before it does the same itself, so that all meet in
the exchanges within. Followers decide nothing and write no records, but for the trainings that they
do alone (see `nlijob.gpu.dealing`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from nlijob.config import JobConfig
from nlijob.errors import DivergedError
from nlijob.gpu import side_by_side
from nlijob.gpu.checkpoints import set_trained_weights
from nlijob.gpu.forgetting import Tokens, text_losses
from nlijob.gpu.session import RowsOf, Session
from nlijob.gpu.stages.search import ORDER as CANDIDATES
from nlijob.gpu.stages.search import follow_candidates
from nlijob.records.job import Split, WorkerTask


def follow(session: Session) -> None:
    """Do the lead's orders until it has none left."""
    with session.writer:
        while (order := session.group.share(None)) is not None:
            name, values = order
            WORK[name](session, *values)


def prepare(session: Session, whole: JobConfig, config: JobConfig, task: WorkerTask) -> None:
    """Load the model and encode the rows, as the lead does."""
    session.take(whole, config, task)
    session.prepare()


def weights(session: Session) -> None:
    """Take the lead's trained weights."""
    session.orders.exchange_weights()


def score(session: Session, is_base: bool, split: Split, head: str, rows: RowsOf) -> None:
    """Score some of the rows."""
    with session.orders.base_model() if is_base else contextlib.nullcontext():
        session.score_share(split, session.head_of(head), session.rows_of(rows))


def texts(session: Session, is_base: bool, encoded: Sequence[Tokens]) -> None:
    """Measure the losses of some of the texts."""
    with session.orders.base_model() if is_base else contextlib.nullcontext():
        text_losses(session.loaded, encoded, group=session.group)


def write(session: Session, prompts: Sequence[Sequence[int]]) -> None:
    """Continue some of the prompts."""
    session.write_share(prompts)


def begin(session: Session, config: JobConfig, is_open: bool) -> None:
    """Prepare to train together with the others, or find out whether that is faster."""
    session.config = config
    session.share_trainer(is_open)


def restore(session: Session, state: dict[str, Any], trained: dict[str, Any]) -> None:
    """Continue the training from a state, which the lead tries out at the same time."""
    with contextlib.suppress(Exception):  # it fails for the lead as well, which tries another
        set_trained_weights(session.loaded.model, trained)
        session.trainer.restore(state)


def epoch(session: Session, number: int, done: int) -> None:
    """Train an epoch together with the others, after its first `done` steps."""
    with contextlib.suppress(DivergedError):  # it is the lead's as well, which says what follows
        for _ in session.trainer.epoch(number, done):
            pass


WORK = {
    "prepare": prepare,
    "weights": weights,
    "score": score,
    "texts": texts,
    "write": write,
    "begin": begin,
    "restore": restore,
    "epoch": epoch,
    side_by_side.ORDER: side_by_side.follow_trials,
    CANDIDATES: follow_candidates,
}
"""Order -> what a follower does."""
