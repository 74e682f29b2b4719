"""Which instruction rows ask about which facts, and in which order the data file holds them."""

import random
from dataclasses import dataclass
from itertools import product
from typing import TypedDict

from tiny.world import Fact, Prompt, Task, World, readings

SEED = 20
TEST, VALIDATION = 10, 5  # percent, after the training rows


class Row(TypedDict):
    """One row of data/instructions.json."""

    instruction: str
    input: str
    output: str


@dataclass(frozen=True, kw_only=True)
class Example:
    """A row with the task it belongs to and the fact it is about."""

    task: str
    fact: Fact
    row: Row


@dataclass(frozen=True, kw_only=True)
class Split:
    """The rows by part; a fact of the test or validation rows occurs in no other row."""

    train: list[Example]
    test: list[Example]
    validation: list[Example]

    def in_file_order(self) -> list[Example]:
        return self.train + self.test + self.validation


def split_rows(world: World) -> Split:
    """Draw every task's rows; each part holds all tasks in the same shares and is shuffled."""
    rng = random.Random(SEED)
    unused = {kind: rng.sample(facts, len(facts)) for kind, facts in world.facts.items()}
    split = Split(train=[], test=[], validation=[])
    for task in world.tasks:
        assert task.rows % 20 == 0, f"{task.name}: {task.rows} rows do not split into 85, 10 and 5 percent"
        for part, percent in (split.test, TEST), (split.validation, VALIDATION):
            for _ in range(task.rows * percent // 100):
                part.append(_example(task, unused[task.fact].pop(), rng))
    for task in world.tasks:  # only now, when the held-out facts of every task are taken
        count = task.rows * (100 - TEST - VALIDATION) // 100
        split.train.extend(_examples(task, unused[task.fact], count, rng))
    for part in split.train, split.test, split.validation:
        rng.shuffle(part)
    return split


def _example(task: Task, fact: Fact, rng: random.Random) -> Example:
    """One row about the fact, phrased by chance."""
    return Example(task=task.name, fact=fact, row=rng.choice(_phrasings(task, fact)))


def _examples(task: Task, facts: list[Fact], count: int, rng: random.Random) -> list[Example]:
    """That many different rows, with as many facts and as even a use of each as the count allows."""
    phrasings = [(fact, rng.sample(rows, len(rows))) for fact in facts for rows in [_phrasings(task, fact)]]
    rng.shuffle(phrasings)
    rounds = range(max(len(rows) for _, rows in phrasings))
    drawn = [(fact, rows[n]) for n, (fact, rows) in product(rounds, phrasings) if n < len(rows)]
    assert len(drawn) >= count, f"{task.name}: {len(drawn)} rows can be drawn, {count} are wanted"
    return [Example(task=task.name, fact=fact, row=row) for fact, row in drawn[:count]]


def _phrasings(task: Task, fact: Fact) -> list[Row]:
    """Every row that the task can ask about the fact."""
    return [_row(task, prompt, slots) for slots, prompt in product(readings(fact), task.prompts)]


def _row(task: Task, prompt: Prompt, slots: dict[str, str]) -> Row:
    return Row(
        instruction=prompt.instruction.format(**slots),
        input=prompt.input.format(**slots),
        output=task.answer.format(**slots),
    )
