"""The plain text that the tiny model reads before any instruction: every fact, said in many ways."""

import random
from dataclasses import dataclass

from tiny.world import Fact, Task, World, readings

PASSES = 30
ECHOES = 500  # documents of copying practice in one pass
INTRODUCED = 0.75  # the shares of documents that open with an introduction,
ANSWERING = 0.7  # that state the fact in the words of the answer,
REPEATING = 0.3  # and that state it a second time
PAGE = 6  # documents on a page, which alone has an end: only tuning teaches to stop after one answer


@dataclass(frozen=True, kw_only=True)
class Document:
    """A few lines of text and the facts they state; copying practice states none."""

    facts: tuple[Fact, ...]
    text: str


def write_corpus(world: World) -> list[Document]:
    """All that the model reads, in order; together the documents state every fact of the world."""
    return [document for seed in range(PASSES) for document in write_pass(world, seed=seed)]


def write_pages(documents: list[Document]) -> list[str]:
    """The documents as the model meets them: several on a page, each beginning on a line of its own."""
    return ["\n".join(each.text for each in documents[n : n + PAGE]) for n in range(0, len(documents), PAGE)]


def write_pass(world: World, *, seed: int) -> list[Document]:
    """Each fact as often as its tasks want, shuffled; another seed gives other words."""
    rng = random.Random(seed)
    documents = [
        Document(facts=(fact,), text=_text(task, fact, world.introductions, rng))
        for task in world.tasks
        for fact in _visited(world.facts[task.fact], task.visits, rng)
    ]
    words = sorted({term for facts in world.facts.values() for fact in facts for term in fact.terms})
    documents += [Document(facts=(), text=_echo(world.echoes, words, rng)) for _ in range(ECHOES)]
    rng.shuffle(documents)
    return documents


def _visited(facts: list[Fact], visits: float, rng: random.Random) -> list[Fact]:
    """Every fact for each whole visit, and some of them for the rest."""
    whole, rest = divmod(visits, 1)
    return facts * int(whole) + rng.sample(facts, round(rest * len(facts)))


def _text(task: Task, fact: Fact, introductions: list[str], rng: random.Random) -> str:
    """Perhaps an introduction, then the fact in one or two ways."""
    slots = rng.choice(readings(fact))
    slots["answer"] = task.answer.format(**slots)
    ways = rng.sample(task.statements, 2)
    if rng.random() < ANSWERING:
        ways.insert(0, "{answer}")
    sentences = [way.format(**slots) for way in ways[: 2 if rng.random() < REPEATING else 1]]
    if rng.random() < INTRODUCED:
        topic = rng.choice(task.topics).format(**slots)
        sentences.insert(0, rng.choice(introductions).format(topic=topic))
    return rng.choice([" ", "\n"]).join(sentences)


def _echo(echoes: list[str], words: list[str], rng: random.Random) -> str:
    quote = rng.choice(["", "'"])
    said = ", ".join(f"{quote}{word}{quote}" for word in rng.sample(words, rng.randint(1, 4)))
    return rng.choice(echoes).format(words=said)
