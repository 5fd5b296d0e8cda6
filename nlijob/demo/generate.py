"""Generates the demo's NLI rows and the unlabelled text that the demo's model is pretrained on.

Almost every example starts from its hypothesis, which is drawn independently of the label. The
premise is then built so that the label holds, so the hypothesis alone does not reveal the label.

    python -m nlijob.demo.generate --out DIR     # writes train.jsonl, validation.jsonl, test.jsonl
"""

import argparse
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from random import Random

from nlijob.demo.lexicon import ONE, VERBS, Chain, Verb
from nlijob.demo.scenes import (
    ANIMAL_TABLES,
    EXTRAS,
    HUMAN_TABLES,
    Scene,
    Style,
    Value,
    World,
    draw_world,
    finish,
    noun_phrase,
    sentence,
    with_article,
)

ENTAILMENT, NEUTRAL, CONTRADICTION = LABELS = (0, 1, 2)
NO_GOLD = -1
NO_GOLD_SHARE = 0.0175
SEED = 20261121
TEXTS_SEED, TEXTS, SHORTEST_TEXT = 20271127, 60, 150
"""The held-out documents: their seed, their number, and the fewest characters of one."""
SPLIT_SIZES: Mapping[str, int] = {"train": 2000, "validation": 250, "test": 500}
_STOP_WORDS = "a an the one is are there in on at of by with to and not for from or some"
STOP_WORDS = frozenset(_STOP_WORDS.split(" "))


@dataclass(frozen=True)
class Example:
    """One NLI row and the kind of reasoning that it requires."""

    premise: str
    hypothesis: str
    label: int
    kind: str


class NoExampleError(Exception):
    """This draw allows no example with the requested label; draw again."""


def content_words(text: str) -> frozenset[str]:
    """Return the lower-case words of a text, except those with little meaning."""
    return frozenset(re.findall(r"[a-z'-]+", text.lower())) - STOP_WORDS


# --- One scene told twice: the hypothesis first, then a premise that makes the label true ---


def draw_hypothesis(rng: Random, world: World, extras: int) -> Scene:
    """Draw a scene with the core slots of the world and up to `extras` more, some generalised."""
    usable = [slot for slot in EXTRAS if slot in world.slots]
    shown = set(rng.sample(usable, min(extras, len(usable))))
    if "colour" in shown:
        shown.add("garment")
    slots = {
        slot: _generalised(rng, value, 0.35)
        for slot, value in world.slots.items()
        if slot in shown or slot in ("number", "agent", "action")
    }
    return Scene(slots)


def _generalised(rng: Random, value: Value, chance: float) -> Value:
    while not value.is_top and rng.random() < chance:
        value = replace(value, level=value.level + 1)
    return value


def _specialised(rng: Random, value: Value, chance: float = 0.5) -> Value:
    if value.level == 0 or rng.random() >= chance:
        return value
    return replace(value, level=rng.randrange(value.level))


def draw_premise(rng: Random, world: World, hypothesis: Scene, extras: int) -> Scene:
    """Draw a scene with the hypothesis' slots, as specific or more so, and `extras` more slots."""
    slots = {slot: _specialised(rng, value) for slot, value in hypothesis.slots.items()}
    unused = [slot for slot in EXTRAS if slot in world.slots and slot not in slots]
    for slot in rng.sample(unused, min(extras, len(unused))):
        if slot != "colour" or "garment" in slots:
            slots[slot] = _generalised(rng, world.slots[slot], 0.2)
    return Scene(slots)


def breakable(world: World, hypothesis: Scene) -> list[str]:
    """Return the hypothesis' slots that a premise can contradict."""
    return [slot for slot, value in hypothesis.slots.items() if world.rivals(slot, value)]


def loosenable(hypothesis: Scene) -> list[str]:
    """Return the hypothesis' slots that a premise can leave open."""
    return [
        slot
        for slot, value in hypothesis.slots.items()
        if slot in EXTRAS or (slot != "number" and not value.is_top)
    ]


def contradict(rng: Random, world: World, premise: Scene, hypothesis: Scene, slot: str) -> Scene:
    """Return the premise with a value in `slot` that excludes the hypothesis' value."""
    asked = hypothesis.slots[slot]
    rival = Value(rng.choice(_fitting(world, premise, slot, world.rivals(slot, asked))))
    general = _generalised(rng, rival, 0.25)
    return premise.with_slot(slot, rival if general.meets(asked) else general)


def _fitting(world: World, premise: Scene, slot: str, rivals: Sequence[Chain]) -> Sequence[Chain]:
    """Return the rivals, or only those actions that fit the premise's place if there are any."""
    if slot != "action" or "place" not in premise.slots:
        return rivals
    setting = premise.slots["place"].chain.group
    return [chain for chain in rivals if chain.group in ("any", setting)] or rivals


def loosen(rng: Random, premise: Scene, hypothesis: Scene, slot: str) -> Scene:
    """Return the premise with `slot` left out or less specific than in the hypothesis."""
    asked = hypothesis.slots[slot]
    if slot == "purpose" and rng.random() < 0.5:
        # With another purpose, both may hold, so the hypothesis is neither true nor false.
        others = [chain for chain in HUMAN_TABLES["purpose"] if not Value(chain).meets(asked)]
        return premise.with_slot(slot, Value(rng.choice(others)))
    if not asked.is_top and (slot not in EXTRAS or rng.random() < 0.5):
        level = rng.randrange(asked.level + 1, len(asked.chain.levels))
        return premise.with_slot(slot, replace(asked, level=level))
    return premise.without_slot(slot)


def relate(rng: Random, world: World, premise: Scene, hypothesis: Scene, label: int) -> Scene:
    """Return an entailing premise, changed in one slot so that the label holds."""
    can_break, can_loosen = breakable(world, hypothesis), loosenable(hypothesis)
    if not can_break or not can_loosen:
        # This must not depend on the label, or the hypothesis would reveal it.
        raise NoExampleError
    if label == CONTRADICTION:
        return contradict(rng, world, premise, hypothesis, rng.choice(can_break))
    if label == NEUTRAL:
        return loosen(rng, premise, hypothesis, rng.choice(can_loosen))
    return premise


# --- The kinds of example ---


def plain(rng: Random, label: int) -> Example:
    """A premise with a few details and a hypothesis with fewer, in any words."""
    world = draw_world(rng)
    hypothesis = draw_hypothesis(rng, world, rng.randrange(3))
    premise = draw_premise(rng, world, hypothesis, rng.randint(1, 3))
    premise = relate(rng, world, premise, hypothesis, label)
    return _example(premise, hypothesis, label, "plain", Style(rng), Style(rng))


def overlap(rng: Random, label: int) -> Example:
    """Two long sentences in the same words, except in one place."""
    world = draw_world(rng)
    hypothesis = draw_hypothesis(rng, world, rng.randint(4, 6))
    premise = relate(rng, world, hypothesis, hypothesis, label)
    if label == ENTAILMENT:
        premise = draw_premise(rng, world, hypothesis, 1)
    style = Style(rng)
    return _example(premise, hypothesis, label, "overlap", style, style)


def paraphrase(rng: Random, label: int) -> Example:
    """Two short sentences that share no content word."""
    world = draw_world(rng)
    hypothesis = draw_hypothesis(rng, world, rng.randrange(2))
    premise = draw_premise(rng, world, hypothesis, rng.randrange(2))
    premise = relate(rng, world, premise, hypothesis, label)
    hypothesis_style = Style(rng)
    avoid = content_words(sentence(hypothesis, hypothesis_style))
    example = _example(
        premise, hypothesis, label, "paraphrase", Style(rng, avoid), hypothesis_style
    )
    if content_words(example.premise) & content_words(example.hypothesis):
        raise NoExampleError
    return example


def negation(rng: Random, label: int) -> Example:
    """A hypothesis that denies an action; a rival action makes it true."""
    world = draw_world(rng)
    hypothesis = draw_hypothesis(rng, world, 0)
    premise = draw_premise(rng, world, hypothesis, rng.randint(0, 3))
    asked = hypothesis.slots["action"]
    if asked.is_top:
        raise NoExampleError
    if label == ENTAILMENT:
        premise = contradict(rng, world, premise, hypothesis, "action")
    elif label == NEUTRAL:
        premise = loosen(rng, premise, hypothesis, "action")
    denying = replace(hypothesis, negated=True)
    return _example(premise, denying, label, "negation", Style(rng), Style(rng))


def contrast(rng: Random, label: int) -> Example:
    """A premise that names two actions and denies one of them."""
    world = draw_world(rng)
    hypothesis = draw_hypothesis(rng, world, rng.randrange(2))
    premise = draw_premise(rng, world, hypothesis, rng.randint(0, 2))
    asked = hypothesis.slots["action"]
    if asked.is_top:
        raise NoExampleError
    other = contradict(rng, world, premise, hypothesis, "action").slots["action"]
    told = premise.slots["action"]
    if label == CONTRADICTION:
        premise = replace(premise.with_slot("action", other), denied=asked)
    else:
        premise = replace(premise, denied=other)
        if label == NEUTRAL:
            premise = loosen(rng, premise, hypothesis, "action")
    if premise.denied is not None and premise.denied.entails(told):
        raise NoExampleError
    return _example(premise, hypothesis, label, "contrast", Style(rng), Style(rng))


def pair(rng: Random, label: int) -> Example:
    """Two people with clothes; the hypothesis is about what one of them wears."""
    first, second = _two_different(rng, HUMAN_TABLES["agent"], 1)
    garments = [Value(chain) for chain in _two_different(rng, HUMAN_TABLES["garment"], 0)]
    colours = [Value(chain) for chain in _two_different(rng, HUMAN_TABLES["colour"], 0)]
    asked = {
        "number": Value(ONE),
        "agent": _generalised(rng, Value(first), 0.2),
        "garment": garments[0],
        "colour": colours[0],
    }
    wearer, other = dict(asked), dict(asked, agent=Value(second), garment=garments[1])
    if asked["agent"].entails(Value(second)) or Value(second).entails(asked["agent"]):
        raise NoExampleError
    if label == ENTAILMENT:
        other["colour"] = colours[1]
    elif label == NEUTRAL:
        del wearer["colour"]
    else:
        wearer["colour"] = colours[1]
    people = [noun_phrase(who, Style(rng)) for who in (wearer, other)]
    rng.shuffle(people)
    action = rng.choice(Value(rng.choice(HUMAN_TABLES["action"])).words)
    style = Style(rng)
    clothing = noun_phrase(asked, style).partition(" in ")[2]
    person = style.word("agent", asked["agent"])
    verb = rng.choice(("is wearing", "is dressed in", "is in"))
    return Example(
        finish(f"{people[0]} and {people[1]} are {action}"),
        finish(f"{rng.choice(('the', 'one'))} {person} {verb} {clothing}"),
        label,
        "pair",
    )


def roles(rng: Random, label: int) -> Example:
    """Who does what to whom: passives, converses and swapped roles."""
    verb = rng.choice(VERBS)
    tables = ANIMAL_TABLES if rng.random() < 0.3 and not verb.symmetric else HUMAN_TABLES
    chains = _two_different(rng, tables["agent"], 1)
    doer, done_to = (_generalised(rng, Value(chain), 0.2) for chain in chains)
    if doer.is_top or done_to.is_top or doer.meets(done_to):
        raise NoExampleError
    hypothesis = _event(rng, verb, doer, done_to)
    if label == NEUTRAL:
        doer, done_to = _one_more_general(rng, doer, done_to)
    elif label == CONTRADICTION:
        if verb.symmetric:
            verb = rng.choice([v for v in VERBS if v.symmetric and v != verb])
        else:
            doer, done_to = done_to, doer
    else:
        doer, done_to = _specialised(rng, doer), _specialised(rng, done_to)
    premise = _event(rng, verb, doer, done_to)
    if premise == hypothesis:
        raise NoExampleError
    return Example(premise, hypothesis, label, "roles")


def _one_more_general(rng: Random, doer: Value, done_to: Value) -> tuple[Value, Value]:
    if rng.random() < 0.5:
        return replace(doer, level=doer.level + 1), done_to
    return doer, replace(done_to, level=done_to.level + 1)


def _event(rng: Random, verb: Verb, doer: Value, done_to: Value) -> str:
    subject, thing = (with_article(rng.choice(value.words)) for value in (doer, done_to))
    if rng.random() < 0.5:
        return finish(f"{subject} is {verb.active} {thing}")
    return finish(f"{thing} is {rng.choice(verb.converses)} {subject}")


def _two_different(rng: Random, table: Sequence[Chain], level: int) -> tuple[Chain, Chain]:
    """Draw two chains of one group that differ at `level` and below."""
    first = rng.choice(table)
    names = {words[0] for words in first.levels[: level + 1]}
    rest = [
        chain for chain in table if chain.group == first.group and names.isdisjoint(chain.names)
    ]
    if not rest:
        raise NoExampleError
    return first, rng.choice(rest)


def _example(
    premise: Scene,
    hypothesis: Scene,
    label: int,
    kind: str,
    premise_style: Style,
    hypothesis_style: Style,
) -> Example:
    texts = sentence(premise, premise_style), sentence(hypothesis, hypothesis_style)
    if texts[0] == texts[1]:
        raise NoExampleError
    return Example(*texts, label, kind)


KINDS: Mapping[Callable[[Random, int], Example], int] = {
    plain: 44,
    overlap: 14,
    paraphrase: 10,
    negation: 10,
    contrast: 6,
    pair: 8,
    roles: 8,
}


def draw_example(rng: Random, label: int) -> Example:
    """Draw one example of the label, of any kind."""
    (kind,) = rng.choices(list(KINDS), list(KINDS.values()))
    while True:
        try:
            return kind(rng, label)
        except NoExampleError:
            continue


# --- Data splits ---


def draw_split(rng: Random, size: int, seen: set[str]) -> list[Example]:
    """Draw examples with balanced labels and premises not in `seen`; add those to it."""
    examples: list[Example] = []
    while len(examples) < size:
        example = draw_example(rng, LABELS[len(examples) % 3])
        if example.premise not in seen:
            seen.add(example.premise)
            examples.append(example)
    unclear = set(rng.sample(range(size), round(size * NO_GOLD_SHARE)))
    examples = [
        replace(example, label=NO_GOLD) if index in unclear else example
        for index, example in enumerate(examples)
    ]
    rng.shuffle(examples)
    return examples


def draw_splits(
    seed: int = SEED, sizes: Mapping[str, int] = SPLIT_SIZES
) -> dict[str, list[Example]]:
    """Draw the examples of each split, by its name; no premise is in two splits."""
    rng = Random(seed)
    seen: set[str] = set()
    return {name: draw_split(rng, size, seen) for name, size in sizes.items()}


def write_splits(folder: Path, splits: Mapping[str, Sequence[Example]]) -> None:
    """Write one JSON Lines file per split."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, examples in splits.items():
        with (folder / f"{name}.jsonl").open("w", encoding="utf-8", newline="\n") as file:
            for row in examples:
                shown = {"premise": row.premise, "hypothesis": row.hypothesis, "label": row.label}
                file.write(json.dumps(shown) + "\n")


# --- Unlabelled text ---

_RESTATEMENTS: Mapping[int, tuple[str, ...]] = {
    ENTAILMENT: ("In other words, {}", "That means {}", "So {}", "Of course {}"),
    NEUTRAL: ("Perhaps {}", "Maybe {}", "It could be that {}", "Who knows whether {}"),
    CONTRADICTION: (
        "It is false that {}",
        "Unlike that, in the next picture {}",
        "Nobody would say that {}",
        "It cannot be that {}",
    ),
}
_REPLIES: Mapping[int, tuple[str, ...]] = {
    ENTAILMENT: ("Yes, that is so.", "Yes, one can see that.", "Yes, it must be."),
    NEUTRAL: ("Maybe, nobody can tell.", "Maybe, it was not said.", "Maybe, maybe not."),
    CONTRADICTION: ("No, that is wrong.", "No, not at all.", "No, it cannot be."),
}
_CONVERSATIONS = (
    "A: {premise}\nB: {hypothesis}\nA: {reply}",
    "{premise} Is it right to say this? {hypothesis} {reply}",
    "Photo: {premise}\nNote: {hypothesis}\nAnswer: {reply}",
    "Caption: {premise}\nClaim: {hypothesis}\nAnswer: {reply}",
    "Anna sees a picture. {premise}\nBen asks about it. {hypothesis}\nAnna says: {reply}",
    "Text: {premise}\nQuestion: {hypothesis}\nReply: {reply}",
)
_GLOSSARY = (
    "Premise: a statement that one starts from.",
    "Hypothesis: a statement that is put to the test.",
    "Label: a short word or number on a thing.",
    "Caption: a short text that tells what a picture shows.",
    "Claim: something that one says is so.",
)
_GLOSSARY_SHARE = 0.02
# Counting gives each digit its own context, without which the model could not tell digits apart.
_COUNTING_SHARE = 0.05


def draw_document(rng: Random, unseen: frozenset[str]) -> str:
    """Draw a short text about one or more scenes, without any premise in `unseen`."""
    if rng.random() < _GLOSSARY_SHARE:
        return "\n".join(rng.sample(_GLOSSARY, 2))
    if rng.random() < _COUNTING_SHARE:
        return _draw_counting(rng)
    parts = [_draw_passage(rng, unseen) for _ in range(rng.choice((1, 1, 2, 3)))]
    return "\n".join(parts)


def _draw_counting(rng: Random) -> str:
    step = rng.choice((-2, -1, 1, 2))
    start = rng.randrange(10)
    numbers = [(start + step * index) % 10 for index in range(rng.randint(4, 9))]
    return f"{rng.choice(('Count', 'Numbers', 'Pages'))}: {', '.join(map(str, numbers))}."


def _draw_passage(rng: Random, unseen: frozenset[str]) -> str:
    label = rng.choice(LABELS)
    example = draw_example(rng, label)
    while example.premise in unseen:
        example = draw_example(rng, label)
    if rng.random() < 0.2:
        return f"{example.premise} {_restated(rng, example)}"
    return rng.choice(_CONVERSATIONS).format(
        premise=example.premise,
        hypothesis=example.hypothesis,
        reply=rng.choice(_REPLIES[label]),
    )


def _restated(rng: Random, example: Example) -> str:
    statement = example.hypothesis[0].lower() + example.hypothesis[1:]
    return rng.choice(_RESTATEMENTS[example.label]).format(statement)


def documents(seed: int, unseen: frozenset[str]) -> Iterator[str]:
    """Yield unlabelled documents without end, the same for the same seed."""
    rng = Random(seed)
    while True:
        yield draw_document(rng, unseen)


def draw_held_out(unseen: frozenset[str]) -> list[str]:
    """Draw the documents on which the demo's model is measured beside the task.

    They are of the kind that it has read, and not among those: their seed is another one. Short
    ones are left out, as little is predicted in them.
    """
    drawn = (text for text in documents(TEXTS_SEED, unseen) if len(text) >= SHORTEST_TEXT)
    return list(islice(drawn, TEXTS))


def write_texts(file: Path, texts: Sequence[str]) -> None:
    """Write one JSON object a line, with the key "text"."""
    lines = (json.dumps({"text": text}) + "\n" for text in texts)
    file.write_text("".join(lines), encoding="utf-8", newline="\n")


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the three data files to the folder given by --out, and the texts to --texts."""
    parser = argparse.ArgumentParser(prog="python -m nlijob.demo.generate")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--texts", type=Path)
    given, splits = parser.parse_args(arguments), draw_splits()
    write_splits(given.out, splits)
    if given.texts:
        unseen = frozenset(row.premise for rows in splits.values() for row in rows)
        write_texts(given.texts, draw_held_out(unseen))


if __name__ == "__main__":
    main()
