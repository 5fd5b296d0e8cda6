"""Measures the model on general text, which shows what tuning did beside the task."""

from __future__ import annotations

from nlijob.gpu.forgetting import encode_texts, text_losses
from nlijob.gpu.reporting import Part
from nlijob.gpu.session import Session
from nlijob.heads import describe
from nlijob.records.forgetting import GeneralText, TextLoss
from nlijob.records.serialization import read_all


def measure_texts(session: Session, stage: str) -> list[TextLoss]:
    """The losses of the model as it is now; none where there are no texts or no language model.

    Call it after rows were scored with the same weights, which brings the adapter's weights to the
    faster layers.
    """
    texts = read_all(GeneralText, session.run.texts)
    if not texts or not describe(session.config.model.head).writes_text:
        return []
    encoded = encode_texts(session.loaded, texts)
    with session.reporter.timed(stage, Part("general text"), len(encoded)):
        return text_losses(session.loaded, encoded)
