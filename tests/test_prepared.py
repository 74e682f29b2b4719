"""A prepared set trains as the same rows from memory do, and no process reads them."""

import json
from pathlib import Path
from typing import Any

import pytest
from faults.harness import logged, weights, write_config
from small_world import tiny_tokenizer

from heed import prepared
from heed.encoding import Policy, encode_split
from heed.errors import UserError
from heed.prompts import Prompt, load_prompt
from heed.sources import Source, read
from heed.splits import by_hash
from heed.subjects import set_aside

SHARES = (0.8, 0.1, 0.1)
POLICY = Policy(max_length=256, on_long_row="drop", loss_on="response")


def write_rows(path: Path, rows: int) -> Path:
    values = [
        {"instruction": f"Say {row}.", "output": f"{path.stem} {row} " + "so " * (row % 9)} for row in range(rows)
    ]
    path.write_text("\n".join(map(json.dumps, values)))
    return path


@pytest.fixture(scope="module")
def prompt() -> Prompt:
    return load_prompt("alpaca_short", tiny_tokenizer())


def recipe(prompt: Prompt, row_format: str = "alpaca", **changes: Any) -> prepared.Recipe:
    choices = {"columns": {}, "split": "hash", "shares": SHARES, "mixture": {}} | changes
    return prepared.recipe(prompt, POLICY, row_format=row_format, **choices)


def prepare(data: Path, folder: Path, prompt: Prompt, num_proc: int = 1, **changes: Any) -> dict[str, Any]:
    def chosen(row_format: str) -> prepared.Recipe:
        return recipe(prompt, row_format, **changes)

    return prepared.prepare(
        Source(data=str(data), on_bad_row="drop"), chosen, folder, num_proc=num_proc, say=lambda text: None
    )


@pytest.mark.parametrize("num_proc", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_shards_hold_what_is_encoded_from_memory(
    tmp_path: Path, prompt: Prompt, num_proc: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepared, "CHUNK", 40)
    monkeypatch.setattr(prepared, "SHARD", 100)
    data = write_rows(tmp_path / "rows.jsonl", 300)
    with data.open("a") as file:
        file.write('\n{"instruction": "no output"}\n')
    facts = prepare(data, tmp_path / "set", prompt, num_proc)

    rows = read(Source(data=str(data), on_bad_row="drop")).rows
    splits = by_hash(rows.records, SHARES)
    wanted = encode_split(splits["train"], prompt, POLICY)
    found = prepared.load(tmp_path / "set", recipe(prompt))
    assert found.dataset.to_dict() == wanted.dataset.to_dict()
    assert found.counts == wanted.counts
    assert facts["rows_sha256"] == rows.sha256
    assert len(facts["shards"]) == 2
    assert (facts["rejected"], facts["counts"]["in test"]) == (1, len(splits["test"]))
    assert prepared.read_held_out(tmp_path / "set", "validation") == splits["validation"]
    held_out = read(Source(data=str(tmp_path / "set" / "test.jsonl"))).rows.records
    assert [record.content_hash for record in held_out] == [record.content_hash for record in splits["test"]]


def test_a_mixture_counts_each_source_as_often_as_it_says(tmp_path: Path, prompt: Prompt) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("books", "web"):
        write_rows(folder / f"{name}.jsonl", 400)
    facts = prepare(folder, tmp_path / "set", prompt, mixture={"web.jsonl": 0.5, "books.jsonl": 2.0}, shares=(1, 0, 0))
    counts = facts["counts"]
    assert counts[f"from {folder / 'books.jsonl'}"] == 800
    assert 160 < counts[f"from {folder / 'web.jsonl'}"] < 240
    assert counts["examples"] == 800 + counts[f"from {folder / 'web.jsonl'}"]
    with pytest.raises(UserError, match=r"mixture: 'wep.jsonl' is none of the files"):
        prepare(folder, tmp_path / "other", prompt, mixture={"wep.jsonl": 0.5})


def test_what_does_not_fit_is_refused(tmp_path: Path, prompt: Prompt) -> None:
    data, folder = write_rows(tmp_path / "rows.jsonl", 60), tmp_path / "set"
    prepare(data, folder, prompt)
    with pytest.raises(UserError, match="is there already; choose another folder or delete it"):
        prepare(data, folder, prompt)
    with pytest.raises(UserError, match="split: a set that is prepared is split as its rows go by"):
        recipe(prompt, split=None)
    with pytest.raises(UserError, match=r"was made with template: .*, and the run says .* \(differing: template\)"):
        prepared.load(folder, recipe(load_prompt("chatml", tiny_tokenizer())))
    shard = folder / "train-00000.arrow"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"train-00000\.arrow is missing or not as long as when it was written"):
        prepared.load(folder, recipe(prompt))
    with pytest.raises(UserError, match=r"holds no prepared\.json; write the folder with --prepare first"):
        prepared.read_facts(tmp_path)


def test_a_run_from_a_prepared_set_learns_what_one_from_memory_learns(tmp_path: Path) -> None:
    from short_run import run

    text = "split: hash\nsplit_shares: [0.8, 0.1, 0.1]\nmax_length: 200\nmax_steps: 4\n"
    config = write_config(tmp_path, rows=60, text=text)
    config.write_text(config.read_text().replace("num_train_epochs: 3\n", ""))
    assert run(config) == 0
    plain = tmp_path / "plain"
    (tmp_path / "run").rename(plain)
    chosen = ("--prepared", str(tmp_path / "set"))
    assert run(config, *chosen, "--prepare") == 0
    assert run(config, *chosen) == 0
    assert logged(tmp_path / "run") == logged(plain)
    assert weights(tmp_path / "run") == weights(plain)
    assert set_aside(tmp_path / "run", "test") == set_aside(plain, "test")
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["data"]["rows_sha256"] == json.loads((plain / "run.json").read_text())["data"]["rows_sha256"]
