"""Where people agree: both models beside the annotators of the test rows."""

from __future__ import annotations

from collections.abc import Iterator

from nlijob.analysis.annotators import annotators_sentence
from nlijob.analysis.slices import ANNOTATORS
from nlijob.analysis.wording import count, interval, percent, plural, share_of
from nlijob.records.outcome import Annotators, Results, Voice
from nlijob.report.view.parts import Fact, Row, Table, View, columns, row
from nlijob.report.view.slice_table import slices_table
from nlijob.report.view.text import unbroken


def annotators_part(results: Results) -> View | None:
    """Both models and a single annotator; None if no labels of single annotators are known."""
    found = results.annotators
    if found is None:
        return None
    slices = [(one.name, one) for one in results.slices if one.family == ANNOTATORS]
    return View(
        lead=unbroken(_lead(found)),
        sentence=unbroken(annotators_sentence(found)),
        voices=Table(
            "A single annotator beside both models, on the same rows",
            columns("who", "same as the gold label", "same as the other annotators"),
            (
                _voice("base model", found.base),
                _voice("tuned model", found.tuned),
                _voice("a single annotator", found.annotator),
            ),
        ),
        table=slices_table(
            "Accuracy before and after, by whether annotators agree",
            "rows in which",
            sorted(slices, key=lambda named: named[1].key),
            results.manifest.label_names,
        ),
        notes=tuple(
            Fact(note.name, unbroken(note.value)) for note in _notes(found, _dropped(results))
        ),
    )


def _lead(found: Annotators) -> str:
    few, most = found.fewest_labels, found.most_labels
    each = count(few) if few == most else f"{count(few)} to {count(most)}"
    text = (
        f"The source tells what single annotators answered: {plural(found.labels, 'label')} for "
        f"{plural(found.rows, 'test row')}, {each} for each. In "
        f"{share_of(found.unanimous, found.rows)} of the rows all of them gave the same label."
    )
    if not found.rows_without:
        return text
    one = found.rows_without == 1
    return (
        f"{text} The other {plural(found.rows_without, 'test row')} {'has' if one else 'have'} the "
        "labels of fewer than two annotators, and are left out here."
    )


def _voice(name: str, voice: Voice) -> Row:
    return row(
        name,
        f"{percent(voice.gold)}\n{interval(voice.gold_interval)}",
        f"{percent(voice.others)}\n{interval(voice.others_interval)}",
    )


def _notes(found: Annotators, dropped: int) -> Iterator[Fact]:
    """How the figures are computed, and what they do not say."""
    gold = (
        "A model's accuracy on these rows. For an annotator it is too high: a gold label is "
        "usually made from the annotators' labels, the annotator's own among them. In SNLI and "
        "MultiNLI it is the label that at least three of five gave, one of whom had written the "
        "hypothesis (Bowman et al., 2015)."
    )
    if found.other_gold:
        gold += (
            f" In {share_of(found.other_gold, found.rows)} of these rows another label is more "
            "frequent than the gold label."
        )
    yield Fact("Same as the gold label", gold)
    yield Fact(
        "Same as the other annotators",
        "Each annotator of a row is left out in turn. The most frequent label of the others then "
        "takes the place of the gold label, for the annotator who was left out and for both models "
        "(cf. Calderon et al., 2025). If several labels are equally frequent, each counts in equal "
        "part. Each row counts once. With one annotator fewer, this label is less certain than the "
        "gold label.",
    )
    yield Fact(
        "Intervals and test",
        "95 % intervals of a mean over rows (Agresti and Coull, 1998; for models and the gold "
        "label, Wilson, 1927), and a sign-flip test of the tuned model against the single "
        f"annotator, {_units(found)}.",
    )
    if dropped:
        yield Fact(
            "Rows without a gold label",
            f"{plural(dropped, 'row')} without a gold label, on which people agree least, are not "
            "among the test rows. Over all rows, people agree less than these figures say.",
        )


def _units(found: Annotators) -> str:
    if found.premises is None:
        return f"over the {plural(found.rows, 'row')}"
    premises = plural(found.premises, "premise")
    return f"over {premises}, as rows with the same premise are not independent"


def _dropped(results: Results) -> int:
    return results.manifest.splits["test"].unlabelled_dropped
