"""Scenes (who does what, where, when and how) and the English sentences that describe them.

A scene maps slots to values; a value names a chain of the lexicon at some level. A sentence B
follows from a sentence A if A has each slot of B at the same or a more specific level.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import TypeVar

from nlijob.demo.lexicon import IRREGULAR_PLURALS, ONE, TABLES, Chain

T = TypeVar("T")

CORE = ("number", "agent", "action")
EXTRAS = ("look", "garment", "colour", "mood", "place", "company", "time", "weather", "purpose")
SLOTS = CORE + EXTRAS


@dataclass(frozen=True)
class Value:
    """A chain of the lexicon, named at `level` (0 is the most specific)."""

    chain: Chain
    level: int = 0

    @property
    def words(self) -> tuple[str, ...]:
        """The interchangeable words for this value."""
        return self.chain.levels[self.level]

    @property
    def is_top(self) -> bool:
        """Whether this is the chain's most general level."""
        return self.level == len(self.chain.levels) - 1

    def entails(self, other: "Value") -> bool:
        """Whether everything that this value describes is also described by the other."""
        return other.words[0] in {level[0] for level in self.chain.levels[self.level :]}

    def meets(self, other: "Value") -> bool:
        """Whether both could be the same thing, named at different levels."""
        return other.words[0] in self.chain.names or self.words[0] in other.chain.names


Slots = Mapping[str, Value]


@dataclass(frozen=True)
class Scene:
    """The content of a sentence.

    `denied` is an action that the agent is said not to be doing. A `negated` scene denies its own
    action.
    """

    slots: Slots
    negated: bool = False
    denied: Value | None = None

    def with_slot(self, slot: str, value: Value) -> "Scene":
        """Return the scene with one slot set."""
        return replace(self, slots={**self.slots, slot: value})

    def without_slot(self, slot: str) -> "Scene":
        """Return the scene without one slot; without a garment, its colour is left out too."""
        gone = {slot, "colour"} if slot == "garment" else {slot}
        return replace(self, slots={k: v for k, v in self.slots.items() if k not in gone})


@dataclass(frozen=True)
class World:
    """All facts about one moment, and the tables that its values come from."""

    slots: Slots
    tables: Mapping[str, Sequence[Chain]]

    def rivals(self, slot: str, value: Value) -> list[Chain]:
        """Return the chains that exclude `value` in `slot`."""
        if slot in ("purpose", "garment"):
            return []
        # If there are two men, there is also a man: no number contradicts "a man".
        if slot == "number" and value.chain == ONE:
            return []
        # Actions and places are grouped by setting, but exclude each other across groups too.
        whatever_group = slot in ("action", "place")
        return [
            chain
            for chain in self.tables[slot]
            if (whatever_group or chain.group == value.chain.group)
            and not Value(chain).meets(value)
        ]


HUMAN_TABLES: Mapping[str, Sequence[Chain]] = {slot: TABLES[slot] for slot in SLOTS}
ANIMAL_TABLES: Mapping[str, Sequence[Chain]] = {
    **{slot: TABLES[slot] for slot in ("number", "place", "time", "weather")},
    **{slot: TABLES[f"animal {slot}"] for slot in ("agent", "action", "look")},
}
ANIMALS_SHARE = 0.2
"""Probability that a scene is about animals."""


def draw_world(rng: Random) -> World:
    """Draw a moment with every slot set."""
    tables = ANIMAL_TABLES if rng.random() < ANIMALS_SHARE else HUMAN_TABLES
    chains = {slot: rng.choice(table) for slot, table in tables.items()}
    if rng.random() < 0.7:
        chains["number"] = ONE
    setting = chains["action"].group
    if setting != "any":
        chains["place"] = rng.choice([c for c in tables["place"] if c.group == setting])
    return World({slot: Value(chain) for slot, chain in chains.items()}, tables)


def plural(noun: str) -> str:
    """Return the plural of a noun phrase whose last word is its head."""
    start, space, head = noun.rpartition(" ")
    if noun == "human being":
        return "human beings"
    if head in IRREGULAR_PLURALS:
        return start + space + IRREGULAR_PLURALS[head]
    if head.endswith("y") and head[-2] not in "aeiou":
        return f"{noun[:-1]}ies"
    return noun + ("es" if head.endswith(("s", "sh", "ch", "x")) else "s")


def with_article(phrase: str) -> str:
    """Return the phrase with "a" or "an" before it."""
    vowel = phrase[0] in "aeiou" and not phrase.startswith(("uni", "use"))
    return f"{'an' if vowel else 'a'} {phrase}"


class Style:
    """A choice of words, with one fixed draw per slot.

    Two scenes in one style differ only where the scenes do. Phrases that share a word with `avoid`
    are not used unless there are no others.
    """

    def __init__(self, rng: Random, avoid: frozenset[str] = frozenset()) -> None:
        self._draws = {key: rng.random() for key in (*SLOTS, "form", "article", "denied")}
        self._avoid = avoid

    def pick(self, key: str, options: Sequence[T]) -> T:
        """Return one of the options, always the same one for the same options."""
        return options[int(self._draws[key] * len(options))]

    def word(self, key: str, value: Value) -> str:
        """Return one of the words for a value."""
        fresh = [word for word in value.words if self._avoid.isdisjoint(word.split())]
        return self.pick(key, fresh or value.words)


def is_plural(slots: Slots) -> bool:
    """Whether a scene has several agents."""
    return slots["number"].chain != ONE


def noun_phrase(slots: Slots, style: Style) -> str:
    """Return the agent with number, look and clothing: "two old men in red hats"."""
    several = is_plural(slots)
    noun = style.word("agent", slots["agent"])
    head = plural(noun) if several else noun
    if "look" in slots:
        head = f"{style.word('look', slots['look'])} {head}"
    dressed = f"{head} in {_clothing(slots, style, several)}" if "garment" in slots else head
    if several:
        return f"{style.word('number', slots['number'])} {dressed}"
    article = style.pick("article", ("a", "a", "a", "the", "one"))
    return with_article(dressed) if article == "a" else f"{article} {dressed}"


def _clothing(slots: Slots, style: Style, several: bool) -> str:
    garment = style.word("garment", slots["garment"])
    already_plural = garment.endswith("s")
    name = plural(garment) if several and not already_plural else garment
    if "colour" in slots:
        name = f"{style.word('colour', slots['colour'])} {name}"
    return name if several or already_plural else with_article(name)


def _action_phrase(scene: Scene, style: Style) -> str:
    action = style.word("action", scene.slots["action"])
    if "mood" in scene.slots:
        action = f"{style.word('mood', scene.slots['mood'])} {action}"
    if scene.denied is None:
        return f"not {action}" if scene.negated else action
    denied = style.word("denied", scene.denied)
    return style.pick("denied", (f"not {denied} but {action}", f"{action}, not {denied},"))


def sentence(scene: Scene, style: Style) -> str:
    """Return an English sentence that describes the scene, with a capital and a full stop."""
    slots = scene.slots
    who = noun_phrase(slots, style)
    be = "are" if is_plural(slots) else "is"
    does = _action_phrase(scene, style)
    order = ("place", "company", "time", "weather", "purpose")
    tail = {slot: style.word(slot, slots[slot]) for slot in order if slot in slots}
    form = style.pick("form", ("plain", "plain", "plain", "there", "caption", "fronted"))
    front = ""
    if form == "fronted" and tail.keys() & {"place", "time", "weather"}:
        front = tail.pop(next(slot for slot in ("time", "weather", "place") if slot in tail)) + ", "
    if form == "there":
        words = ["there", be, who, does, *tail.values()]
    elif form == "caption" and not scene.negated:
        words = [who, does, *tail.values()]
    else:
        words = [who, be, does, *tail.values()]
    return finish(front + " ".join(words))


def finish(text: str) -> str:
    """Return the text with a capital at its start and a full stop at its end."""
    text = text.rstrip(",")
    return f"{text[0].upper()}{text[1:]}."
