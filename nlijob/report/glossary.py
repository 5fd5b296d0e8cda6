"""Explains the page's terms: a glossary, and a link to it where a term is first used."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from markupsafe import Markup, escape


@dataclass(frozen=True)
class Term:
    """A term of statistics or machine learning that readers of a report may not know."""

    id: str
    """The entry's anchor on the page is "term-" and this."""
    name: str
    meaning: str
    """Plain sentences; the first is shown as a short help where the term is first used."""
    pattern: str
    """Regular expression of its spellings in the page's text. A blank stands for any blank."""

    @property
    def short(self) -> str:
        """The first sentence of the meaning."""
        return self.meaning.partition(". ")[0].removesuffix(".") + "."


TERMS = (
    Term(
        "adapter",
        "adapter",
        "A small set of weights that is trained and added to a model whose own weights stay as "
        "they are. Without the adapter, the tuned model is the base model again.",
        "adapters?",
    ),
    Term(
        "balanced-accuracy",
        "balanced accuracy",
        "The mean of the recalls of all labels, so that a rare label counts as much as a frequent "
        "one.",
        "balanced accuracy",
    ),
    Term(
        "bootstrap",
        "bootstrap",
        "A way to get an interval for any figure: it is computed again and again on rows drawn at "
        "random from the measured ones.",
        "(?:percentile )?bootstrap",
    ),
    Term(
        "brier",
        "Brier score",
        "The squared distance between the predicted probabilities and the correct answer: 0 is "
        "best, 2 is worst. It rewards being right and being sure of it.",
        "Brier score",
    ),
    Term(
        "calibration",
        "calibration",
        "Whether a model is right as often as it is sure. Of the answers to which a calibrated "
        "model gives a probability of 80 %, four in five are correct.",
        "calibrat(?:ion|ed)",
    ),
    Term(
        "cuda-graph",
        "CUDA graph",
        "A recorded sequence of a GPU's operations that is started as a whole. It does the same "
        "computation in less time.",
        "CUDA graphs?",
    ),
    Term(
        "ece",
        "expected calibration error (ECE)",
        "How far the probabilities of the answers are from the share of correct answers, on "
        "average. 0 points would be perfect calibration.",
        "expected calibration error|ECE",
    ),
    Term(
        "epoch",
        "epoch",
        "One pass of the training over all training rows.",
        "epochs?",
    ),
    Term(
        "f1",
        "F1 and macro F1",
        "F1 is a mean of a label's precision and recall, which is high only if both are. Macro F1 "
        "is the mean of the F1 of all labels.",
        "macro F1|F1",
    ),
    Term(
        "few-shot",
        "few-shot",
        "Giving a model some solved examples in its prompt, instead of training it.",
        "few-shot(?: prompting)?",
    ),
    Term(
        "gold-label",
        "gold label",
        "The label that the data set gives as the correct one.",
        "gold labels?",
    ),
    Term(
        "checkpointing",
        "gradient checkpointing",
        "Computing some values of the model a second time in training instead of keeping them. It "
        "saves memory and takes more time.",
        "gradient checkpointing",
    ),
    Term(
        "holm",
        "Holm's adjustment",
        "A correction for testing several things at once, of which one is more easily significant "
        "by chance. It makes the p-values larger (Holm, 1979).",
        "Holm(?:-adjusted)?",
    ),
    Term(
        "interval",
        "95 % interval",
        "The values that go well with what was measured. If it were measured again and again with "
        "other rows of the same kind, about 95 of 100 such intervals would hold the true value.",
        "95 % (?:confidence )?intervals?",
    ),
    Term(
        "label-token",
        "label token",
        "The token with which the model names a label. The label whose token has the highest "
        "probability is the answer.",
        "label tokens?",
    ),
    Term(
        "lora",
        "LoRA",
        "Low-rank adaptation: the adapter's weights are pairs of narrow matrices, beside the "
        "model's large ones, so few numbers are trained.",
        "LoRA(?! rank)",
    ),
    Term(
        "lora-rank",
        "LoRA rank",
        "The width of the adapter's matrices. A higher rank means more numbers to train.",
        "LoRA rank",
    ),
    Term(
        "loss",
        "loss, nats",
        "How improbable the correct answer is to the model: minus the natural logarithm of its "
        "probability. 0 nats is perfect; guessing among three labels gives 1.099 nats.",
        "(?:training|validation|mean) loss(?:es)?|nats",
    ),
    Term(
        "mcnemar",
        "McNemar test",
        "Compares two models on the same rows. It looks at the rows that exactly one of them "
        "labels correctly, and tells how likely such a difference is by chance.",
        "(?:exact )?McNemar tests?",
    ),
    Term(
        "nf4",
        "NF4",
        "A format that stores a weight in 4 bits instead of 16 or 32. Its 16 values are spaced as "
        "the weights of a network usually are.",
        "(?:4-bit )?NF4",
    ),
    Term(
        "overfitting",
        "overfitting",
        "A model learns its training rows by heart and becomes worse on others.",
        "overfitt(?:ing|ed)",
    ),
    Term(
        "p-value",
        "p, p-value",
        "How likely it is that chance alone gives a difference at least this large. Below 0.05, a "
        "difference counts as significant here.",
        "p(?= [=<>] )|p-values?",
    ),
    Term(
        "packed",
        "packed rows",
        "Rows of different lengths are laid end to end, so that nothing is computed for filling.",
        "packed rows",
    ),
    Term(
        "perplexity",
        "perplexity",
        "Among how many equally likely tokens the model hesitates, on average. It is the "
        "exponential of the loss.",
        "perplexity",
    ),
    Term(
        "precision",
        "precision",
        "Of the rows to which a model gives a label, the share that has it.",
        "precision",
    ),
    Term(
        "premise",
        "premise and hypothesis",
        "The two texts of a row. The label says whether the hypothesis follows from the premise, "
        "contradicts it, or neither.",
        "premises?",
    ),
    Term(
        "quantised",
        "quantised",
        "Stored with fewer bits for each weight. It saves memory and changes the model a little.",
        "(?:double )?quantis(?:ed|ation)",
    ),
    Term(
        "recall",
        "recall",
        "Of the rows that have a label, the share to which the model gives it.",
        "recall",
    ),
    Term(
        "seed",
        "seed",
        "The number from which all random choices of a training follow. Trainings that differ in "
        "their seed alone show how much chance there is in the result.",
        "seeds?",
    ),
    Term(
        "sign-flip",
        "sign-flip test",
        "Compares two models by the differences of their figures on the same rows or texts. It "
        "tells how often differences with random signs would be as large on average.",
        "sign-flip tests?",
    ),
    Term(
        "slice",
        "slice",
        "A part of the test rows that have something in common, such as a negation.",
        "slices?",
    ),
    Term(
        "token",
        "token",
        "A piece of text as the model reads it: a word or a part of one.",
        "tokens?",
    ),
    Term(
        "validation",
        "validation rows",
        "Rows that are not trained on, by which the epoch is selected. The test rows play no part "
        "in any choice, so their figures are fair.",
        "validation (?:rows|accuracy)",
    ),
)


class FirstUses:
    """Links the first use of each term on a page to its entry in the glossary."""

    def __init__(self) -> None:
        self._met: set[str] = set()

    def linked(self, text: str) -> Markup:
        """A text escaped for HTML, in which each term that was not met before is a link.

        A text that is markup already must have no elements.
        """
        plain = text.unescape() if isinstance(text, Markup) else text
        return Markup("").join(self._parts(plain))

    def _parts(self, text: str) -> Iterator[Markup]:
        done = 0
        for found in _ANY.finditer(text):
            term = _BY_GROUP[found.lastgroup or ""]
            if term.id not in self._met:
                self._met.add(term.id)
                yield escape(text[done : found.start()])
                yield _LINK.format(term.id, term.short, found.group())
                done = found.end()
        yield escape(text[done:])


_LINK = Markup('<a class="term" href="#term-{}" title="{}">{}</a>')


def _group(term: Term) -> str:
    """The name of a term's group in the expression of all."""
    return term.id.replace("-", "_")


_BY_GROUP = {_group(term): term for term in TERMS}


def _any_term() -> re.Pattern[str]:
    """All terms as whole words that are no part of a setting's name."""
    spellings = "|".join(f"(?P<{_group(term)}>{term.pattern})" for term in TERMS)
    text = spellings.replace(" ", "[ \u00a0]")
    return re.compile(rf"(?<![\w.-])(?:{text})(?!\w|\.\w|-\w)", re.IGNORECASE)


_ANY = _any_term()
