"""What is true in the tiny world, and the words each task has for it."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, combinations_with_replacement, product
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent

# What the terms of each kind of fact are called in phrases.yaml.
SLOTS = {
    "capital": ("country", "capital"),
    "continent": ("country", "continent"),
    "category": ("thing", "category"),
    "antonym": ("word", "opposite"),
    "plural": ("singular", "plural"),
    "past": ("present", "past"),
    "comparative": ("adjective", "comparative"),
    "spelling": ("misspelling", "correct"),
    "formal": ("plain", "formal"),
    "noun": ("adjective", "noun"),
    "young": ("animal", "young"),
    "colour": ("thing", "colour"),
    "sentence": ("subject", "base", "third", "participle", "object"),
    "sum": ("first", "second", "total"),
    "order": ("first", "second"),
    "number": ("digits", "name"),
}
PAIRS = ("antonym", "plural", "past", "comparative", "spelling", "formal", "noun", "young", "colour")
EITHER_WAY = ("sum", "order")  # as true with the first two terms exchanged


@dataclass(frozen=True, kw_only=True)
class Fact:
    """One thing that is true; two rows are about the same fact exactly if their facts are equal."""

    kind: str
    terms: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """One way to ask, with slots; the input may be empty."""

    instruction: str
    input: str = ""


@dataclass(frozen=True, kw_only=True)
class Task:
    """One thing to ask about a kind of fact; phrases.yaml says what the fields mean."""

    name: str
    fact: str
    rows: int
    visits: float
    answer: str
    prompts: tuple[Prompt, ...]
    topics: tuple[str, ...]
    statements: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class World:
    """All facts by kind, all tasks, and the sentences that belong to no task."""

    facts: dict[str, list[Fact]]
    tasks: list[Task]
    introductions: list[str]
    echoes: list[str]


def load_world() -> World:
    """Read world.yaml and phrases.yaml, which lie beside this module."""
    tables = yaml.safe_load((FOLDER / "world.yaml").read_text(encoding="utf-8"))
    phrases = yaml.safe_load((FOLDER / "phrases.yaml").read_text(encoding="utf-8"))
    facts: dict[str, list[Fact]] = {kind: [] for kind in SLOTS}
    for kind, *terms in _facts(tables):
        assert all(isinstance(term, str) for term in terms), f"quote what YAML takes for a value: {terms}"
        facts[kind].append(Fact(kind=kind, terms=tuple(terms)))
    tasks = [_task(name, fields) for name, fields in phrases["tasks"].items()]
    introductions, echoes = phrases["introductions"], phrases["echoes"]
    return World(facts=facts, tasks=tasks, introductions=introductions, echoes=echoes)


def readings(fact: Fact) -> list[dict[str, str]]:
    """The ways to fill slots from a fact: a sum can be read from both sides, a capital from one."""
    first, second, *rest = fact.terms
    exchanged = [(second, first, *rest)] if fact.kind in EITHER_WAY and first != second else []
    return [_fill(fact.kind, terms) for terms in [fact.terms, *exchanged]]


def _fill(kind: str, terms: tuple[str, ...]) -> dict[str, str]:
    slots = dict(zip(SLOTS[kind], terms, strict=True))
    slots |= {_capitalised(name): _capitalised(term) for name, term in slots.items()}
    if kind == "sentence":
        slots["active"] = "{Subject} {third} {object}.".format(**slots)
    if kind == "order":
        slots |= {"small": min(terms, key=int), "large": max(terms, key=int)}
    return slots


def _facts(tables: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """Each fact's kind and then its terms, table after table."""
    for continent, capitals in tables["countries"].items():
        for country, capital in capitals.items():
            yield "capital", country, capital
            yield "continent", country, continent
    for category, things in tables["categories"].items():
        for thing in things:
            yield "category", thing, category
    for kind in PAIRS:
        for left, right in tables[kind].items():
            yield kind, left, right
    for subject, action in product(tables["subjects"], tables["actions"]):
        yield "sentence", subject, *action
    yield from _number_facts(tables["numbers"])


def _number_facts(numbers: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    for first, second in combinations_with_replacement(range(1, numbers["sums_up_to"] + 1), 2):
        yield "sum", str(first), str(second), str(first + second)
    for small, large in combinations(range(1, numbers["compared_up_to"] + 1), 2):
        yield "order", str(small), str(large)
    for number in range(numbers["named_up_to"] + 1):
        yield "number", str(number), _name(number, numbers["units"], numbers["tens"])


def _name(number: int, units: list[str], tens: list[str]) -> str:
    """A number below one hundred in English words."""
    if number < len(units):
        return units[number]
    ten, unit = tens[number // 10 - 2], number % 10
    return f"{ten}-{units[unit]}" if unit else ten


def _task(name: str, fields: dict[str, Any]) -> Task:
    """A task as phrases.yaml spells it, where a prompt without input is a bare string."""
    prompts = [Prompt(instruction=p) if isinstance(p, str) else Prompt(**p) for p in fields["prompts"]]
    return Task(
        name=name,
        fact=fields["fact"],
        rows=fields["rows"],
        visits=fields["visits"],
        answer=fields["answer"],
        prompts=tuple(prompts),
        topics=tuple(fields["topics"]),
        statements=tuple(fields["statements"]),
    )


def _capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]
