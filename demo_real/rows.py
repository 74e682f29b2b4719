"""The rows of the demonstration: some of the embedded ones, and chats of our own.

    python -m demo_real.rows runs/smollm2_rows

The embedded rows keep their splits: a fact of the held-out ones occurs in no training row.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

DATA = Path(__file__).parent.parent / "data"
TRAIN, TEST, VALIDATION = range(300), range(1275, 1335), range(1425, 1455)  # positions in data/instructions.json


def main(folder: Path) -> None:
    rows = json.loads((DATA / "instructions.json").read_text(encoding="utf-8"))
    chats = [json.loads(line) for line in (DATA / "chats.jsonl").read_text(encoding="utf-8").splitlines()]
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / "train.jsonl", [as_messages(rows[place]) for place in TRAIN] + chats)
    write(folder / "test.jsonl", [as_messages(rows[place]) for place in TEST])
    write(folder / "validation.jsonl", [as_messages(rows[place]) for place in VALIDATION])


def as_messages(row: dict[str, str]) -> dict[str, Any]:
    question = {"role": "user", "content": row["instruction"]} | ({"input": row["input"]} if row["input"] else {})
    return {"messages": [question, {"role": "assistant", "content": row["output"]}]}


def write(path: Path, rows: Sequence[Any]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
