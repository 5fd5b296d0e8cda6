"""Environment variables that look like the job's own and are none: they are refused.

Otherwise a job with NLIJOB_EPOCS=1 would quietly run for the recipe's number of epochs.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import typing
from collections.abc import Mapping

from nlijob import commands
from nlijob.config import JobConfig
from nlijob.errors import ConfigurationError
from nlijob.printable import printable

OWN = re.compile(r"nlijob[_.-]", re.IGNORECASE)
SERVICE = re.compile(
    r"NLIJOB_(\w+_)?(SERVICE_(HOST|PORT(_\w+)?)|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)
"""What Kubernetes and Docker set in every container beside a service named nlijob or nlijob-..."""
WHOLE_NUMBERS = ("HF_HUB_DOWNLOAD_TIMEOUT", "HF_HUB_ETAG_TIMEOUT")
"""Variables of the hub's client, which cannot be imported if these are anything else."""
CLOSE = 3
"""Number of names that are suggested."""


def known_variables() -> list[str]:
    """The environment variables of all commands' options, sorted."""
    return sorted(
        {
            option.envvar
            for name in commands.NAMES
            for option in commands.load(name).params
            if isinstance(option.envvar, str)
        }
    )


def check_variables(environment: Mapping[str, str]) -> None:
    """Raise ConfigurationError that names every variable which is no option's, or is unusable.

    An empty variable counts as not set, here too.
    """
    for name in WHOLE_NUMBERS:
        if (value := environment.get(name, "")) and not re.fullmatch(r"\s*\d+\s*", value):
            raise ConfigurationError(
                f"environment variable {name}: {printable(value)!r} is not a whole number",
                "give it in seconds, or unset it",
            )
    own = sorted(name for name, value in environment.items() if value and OWN.match(name))
    if not own:
        return
    known = known_variables()
    unknown = [name for name in own if name not in known and not SERVICE.fullmatch(name)]
    if unknown:
        raise ConfigurationError.from_faults(
            [_fault(name, known) for name in unknown],
            "correct or unset it; `run --help` lists the options, and --train-size is "
            "NLIJOB_TRAIN_SIZE",
        )


def _fault(name: str, known: list[str]) -> str:
    words = OWN.sub("", name, count=1).lower()
    return f"environment variable {printable(name)}: {_advice(words, known)}"


def _advice(words: str, known: list[str]) -> str:
    asked = f"NLIJOB_{words.upper()}"
    named = _keys_named(words)
    if asked in known:
        return f"did you mean {asked}?"
    if named and all(variable is None for variable in named.values()):
        keys = " or ".join(f'NLIJOB_SET="{key}=VALUE"' for key in named)
        return f"no option has this name; set {keys}"
    close = [variable for variable in named.values() if variable]
    close += [variable for variable in known if variable.startswith(f"{asked}_")]
    names = [variable.removeprefix("NLIJOB_") for variable in known]
    alike = difflib.get_close_matches(words.upper(), names, n=CLOSE)
    close += [f"NLIJOB_{alike_name}" for alike_name in alike]
    nearest = list(dict.fromkeys(close))[:CLOSE]
    return f"did you mean {' or '.join(nearest)}?" if nearest else "no option has this name"


def _keys_named(words: str) -> dict[str, str | None]:
    """The configuration keys that `words` may mean, such as lora_r or max_length.

    Each with the variable of the option that sets it, or None.
    """
    from nlijob.commands.options import OPTIONS, variable

    of_options = {key: variable(option) for option, (key, _, _) in OPTIONS.items()}
    sections = typing.get_type_hints(JobConfig).items()
    keys = [
        (section, field.name)
        for section, kind in sections
        if dataclasses.is_dataclass(kind)
        for field in dataclasses.fields(kind)
    ]
    return {
        f"{section}.{key}": of_options.get(f"{section}.{key}")
        for section, key in keys
        if words in (key, f"{section}_{key}")
    }
