"""The modules that LoRA adapts: by the part that they have in the model, by name, or by pattern."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from torch import nn

from nlijob.config import TARGET_KEYWORDS, target_pattern
from nlijob.errors import ConfigurationError
from nlijob.gpu.model.structure import LINEAR, Part, Structure, is_within

PARTS: dict[str, tuple[Part, ...]] = {
    "attention": ("attention", "mixer"),
    "mlp": ("mlp",),
    "all-linear": ("attention", "mixer", "mlp", "other"),
}
"""Keyword -> the parts of a model that it stands for. The routers of experts are in none of them: a
small change there sends a token to other experts."""
REFUSED_BY_PEFT = "out_proj"
"""Last name of layers of state space models that PEFT refuses to adapt, because kernels read their
weights without calling them."""

Item = str | re.Pattern[str]
"""One of the wanted: a keyword, a name, or a pattern of whole names."""


@dataclass(frozen=True)
class _Searched:
    """What targets are looked for in."""

    modules: dict[str, nn.Module]
    structure: Structure
    head: tuple[str, ...]
    """Linear modules of a head that is not trained in full, such as a language model's."""

    def matches(self, item: Item) -> list[str]:
        """The modules that an item stands for."""
        if isinstance(item, str) and item in TARGET_KEYWORDS:
            return list(_of_parts(self.structure, PARTS[item]))
        named = [*self.structure.parts, *self.head]
        if isinstance(item, re.Pattern):
            return [name for name in named if item.fullmatch(name)]
        return [name for name in named if is_target(name, item)]


def is_target(name: str, target: str) -> bool:
    """Whether PEFT counts a module of this name among a target's."""
    return name == target or name.endswith(f".{target}")


def find_targets(
    model: nn.Module,
    found: Structure,
    wanted: str | Sequence[str],
    head_modules: Sequence[str],
    trains_head: bool,
) -> tuple[str, ...]:
    """What PEFT is to adapt: names of modules, or ends of names that match no other module.

    `wanted` is lora.target_modules. Raises ConfigurationError that names what matches nothing, and
    what there is.
    """
    modules = dict(model.named_modules())
    head = () if trains_head else tuple(_linear_within(modules, head_modules))
    searched = _Searched(modules, found, head)
    pattern = target_pattern(wanted) if isinstance(wanted, str) else None
    items: Sequence[Item] = [pattern or wanted] if isinstance(wanted, str) else wanted
    each = {item: searched.matches(item) for item in items}
    unmatched = [item for item, names in each.items() if not names]
    if unmatched:
        raise ConfigurationError.from_faults(list(_faults(unmatched, searched)), _there_is(found))
    names = [item for item in each if isinstance(item, str)]
    if len(names) == len(each) and all(_is_found_by_peft(n, each[n], modules) for n in names):
        return tuple(names)
    chosen = {name for matched in each.values() for name in matched}
    return shortest_ends([name for name in modules if name in chosen], modules, is_target)


def shortest_ends(
    chosen: Sequence[str], names: Iterable[str], matches: Callable[[str, str], bool]
) -> tuple[str, ...]:
    """Ends of names, from a dot on, that match all of `chosen` and nothing else among `names`.

    "a.0.q" and "a.1.q" give "q" if no other name ends so. `matches`: whether a name has an end.
    """
    own, every = set(chosen), list(names)
    is_exact: dict[str, bool] = {}
    ends: dict[str, None] = {}
    for name in chosen:
        parts = name.split(".")
        for start in reversed(range(len(parts))):
            end = ".".join(parts[start:])
            if end not in is_exact:
                is_exact[end] = own.issuperset(n for n in every if matches(n, end))
            if is_exact[end]:
                break
        ends[end] = None
    return tuple(ends)


# ---------------------------------------------------------------- detail


def _of_parts(found: Structure, parts: Sequence[Part]) -> Iterator[str]:
    """The modules of some parts in which an adapter has an effect."""
    for name, part in found.parts.items():
        is_refused = part == "mixer" and is_target(name, REFUSED_BY_PEFT)
        if part in parts and name not in found.unused | found.passed_by and not is_refused:
            yield name


def _is_found_by_peft(target: str, matched: Sequence[str], modules: Iterable[str]) -> bool:
    """Whether a target, as it is, has PEFT adapt exactly these modules."""
    return {name for name in modules if is_target(name, target)} == set(matched)


def _linear_within(modules: dict[str, nn.Module], names: Sequence[str]) -> Iterator[str]:
    for name, module in modules.items():
        if isinstance(module, LINEAR) and is_within(name, names):
            yield name


def _faults(unmatched: Iterable[Item], searched: _Searched) -> Iterator[str]:
    """Why nothing was found for some items, each as "section.key: what is wrong"."""
    unknown = []
    for item in unmatched:
        why = _why_nothing(item, searched)
        if why:
            yield f"lora.target_modules: {why}"
        else:
            unknown.append(str(item))
    if unknown:
        named = " or ".join(unknown)
        yield f"lora.target_modules: no linear module of the model is named {named}"


def _why_nothing(item: Item, searched: _Searched) -> str:
    """Why nothing was found for an item; "" for a name that the model does not have."""
    if isinstance(item, re.Pattern):
        return f"no linear module of the model has a name of the form {item.pattern}"
    if item in TARGET_KEYWORDS:
        return f"the model has no {item} modules that LoRA can adapt"
    if any(is_target(name, item) for name in searched.structure.elsewhere):
        return f"{item} is only in the part of the model that does not read text"
    kinds = [type(m).__name__ for name, m in searched.modules.items() if is_target(name, item)]
    return f"{item} is not a linear module but a {kinds[0]}" if kinds else ""


def _there_is(found: Structure) -> str:
    """The last names of the modules that there are, by keyword."""
    listed = [
        f"{keyword}: {', '.join(names)}"
        for keyword, parts in PARTS.items()
        if keyword != "all-linear"
        and (names := list(dict.fromkeys(n.rpartition(".")[2] for n in _of_parts(found, parts))))
    ]
    return f"the model has {'; '.join(listed)}" if listed else "the model has no linear modules"
