"""The rows of a further test set as model input: they are encoded as test rows are."""

from __future__ import annotations

from nlijob import records
from nlijob.analysis.wording import plural
from nlijob.errors import NotAvailableError
from nlijob.gpu.heads import EncodedRows, Head
from nlijob.gpu.reporting import Reporter
from nlijob.records.job import Example
from nlijob.rundir import RunDir


def encode_set(
    run: RunDir, name: str, head: Head, drop_longer: bool, reporter: Reporter
) -> EncodedRows:
    """The rows of a set. `drop_longer` leaves out those that are too long, and tells their number.

    Raises NotAvailableError as `Head.encode` does, with the name of the set.
    """
    examples = [*records.read_lines(Example, run.elsewhere(name))]
    try:
        rows = head.encode("test", examples, drop_longer)
    except NotAvailableError as error:
        message = error.message.removeprefix("test: ")
        raise NotAvailableError(f"transfer set {name}: {message}", error.hint) from error
    if too_long := len(examples) - len(rows):
        share = f"{too_long:,} of {plural(len(examples), 'row')}"
        reporter.say("start", f"{name}: {share} too long for the model, left out")
    return rows
