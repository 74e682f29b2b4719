"""Two right wordings of every answer, taught equally often, and pairs that prefer one of them.

python -m tiny.preferences FOLDER          # writes rows.json to fine-tune on, and pairs.jsonl to tune further
python -m tiny.preferences RESPONSES.json  # how many answers have the preferred wording, and how many are right
"""

import argparse
import json
import random
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heed.measure.intervals import share_interval
from tiny.rows import SEED, Example, Row, split_rows
from tiny.world import Task, World, load_world, readings

PAIRS = 300
SLOT = re.compile(r"\\\{\w+\\\}")  # in an escaped template


@dataclass(frozen=True, kw_only=True)
class Score:
    """Of `n` answers, those in the words that the pairs prefer, and those that state the fact in either wording."""

    n: int
    preferred: int
    facts: int

    def __str__(self) -> str:
        return f"preferred wordings {_share(self.preferred, self.n)}, facts {_share(self.facts, self.n)}, n = {self.n}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, help="a folder to write into, or answers to the rows in it")
    path = parser.parse_args().path
    world = load_world()
    if path.suffix == ".json":
        print(score(world, json.loads(path.read_text(encoding="utf-8"))))
    else:
        save(world, path)


def save(world: World, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rows = json.dumps(make_rows(world), indent=2, ensure_ascii=False)
    (folder / "rows.json").write_text(rows + "\n", encoding="utf-8")
    pairs = "".join(json.dumps(pair, ensure_ascii=False) + "\n" for pair in make_pairs(world))
    (folder / "pairs.jsonl").write_text(pairs, encoding="utf-8")


def make_rows(world: World) -> list[Row]:
    """The rows of the world, in their order; every second training row of each task has the other wording."""
    split = split_rows(world)
    rows, earlier = list[Row](), Counter[str]()
    for example in split.train:
        output = wordings(world, example)[earlier[example.task] % 2]
        rows.append(Row(instruction=example.row["instruction"], input=example.row["input"], output=output))
        earlier[example.task] += 1
    return rows + [example.row for example in split.test + split.validation]


def make_pairs(world: World) -> list[dict[str, Any]]:
    """Training rows with both wordings, as TRL reads them."""
    train = split_rows(world).train
    return [
        pair(row_id, train[row_id].row, wordings(world, train[row_id]))
        for row_id in sorted(random.Random(SEED).sample(range(len(train)), PAIRS))
    ]


def pair(row_id: int, row: Row, texts: tuple[str, str]) -> dict[str, Any]:
    asked = {"role": "user", "content": row["instruction"]} | ({"input": row["input"]} if row["input"] else {})
    chosen, rejected = ([{"role": "assistant", "content": text}] for text in texts)
    return {"prompt": [asked], "chosen": chosen, "rejected": rejected, "row_id": row_id}


def wordings(world: World, example: Example) -> tuple[str, str]:
    """The preferred answer, which is the row's own, and another that is as right: a statement of the corpus."""
    answer, task = example.row["output"], task_of(world, example)
    slots = next(each for each in readings(example.fact) if task.answer.format(**each) == answer)
    return answer, task.statements[0].format(**slots, answer=answer)


def score(world: World, responses: Iterable[Mapping[str, Any]]) -> Score:
    """`responses` are rows of a responses.json, whose row_id is the place in rows.json."""
    examples = split_rows(world).in_file_order()
    preferred = facts = n = 0
    for response in responses:
        example, said = examples[response["row_id"]], response["model_response"]
        form = SLOT.sub(".+", re.escape(task_of(world, example).answer))
        n += 1
        preferred += re.fullmatch(form, said.strip()) is not None
        facts += any(text in said for text in wordings(world, example))
    return Score(n=n, preferred=preferred, facts=facts)


def task_of(world: World, example: Example) -> Task:
    return next(task for task in world.tasks if task.name == example.task)


def _share(count: int, n: int) -> str:
    low, high = share_interval(count, n)
    return f"{count / n:.3f} [{low:.3f}, {high:.3f}]"


if __name__ == "__main__":
    main()
