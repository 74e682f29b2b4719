"""The embedded world: its rows, its base model, and what the demo shows with them."""

import json
from pathlib import Path

import pytest

import train_sft
from heed.errors import exit_code
from heed.prompts.template import load_prompt
from tiny.build import FRAME, save_plain_text, save_rows
from tiny.corpus import write_corpus
from tiny.rows import split_rows
from tiny.world import load_world
from world.small_world import ROOT, TINY, tiny_tokenizer

WORLD = load_world()
SPLIT = split_rows(WORLD)
HELD_OUT = SPLIT.test + SPLIT.validation


def test_the_rows_are_rebuilt_from_their_sources_byte_for_byte(tmp_path: Path) -> None:
    save_rows(SPLIT, tmp_path / "instructions.json")
    assert (tmp_path / "instructions.json").read_bytes() == (ROOT / "data" / "instructions.json").read_bytes()


def test_the_plain_text_is_rebuilt_too(tmp_path: Path) -> None:
    save_plain_text(WORLD, tmp_path / "tiny_text.txt")
    text = (tmp_path / "tiny_text.txt").read_text()

    assert text == (ROOT / "data" / "tiny_text.txt").read_text() and text.count("\n") == 60


def test_there_are_enough_rows_of_many_kinds_and_none_twice() -> None:
    rows = json.loads((ROOT / "data" / "instructions.json").read_text())
    assert len(rows) >= 1000 and len(rows) % 20 == 0
    assert len({json.dumps(row) for row in rows}) == len(rows)
    assert all(set(row) == {"instruction", "input", "output"} for row in rows)
    assert len({example.task for example in SPLIT.train}) >= 9
    assert {example.task for example in SPLIT.train} == {example.task for example in HELD_OUT}
    assert sum(bool(row["input"]) for row in rows) > 200


def test_the_split_by_position_splits_the_rows_as_intended() -> None:
    total = len(SPLIT.in_file_order())
    assert len(SPLIT.train) == total * 85 // 100
    assert len(SPLIT.test) == total * 10 // 100
    assert len(SPLIT.validation) == total * 5 // 100


def test_held_out_facts_are_pretrained_and_never_in_a_training_row() -> None:
    stated = {fact for document in write_corpus(WORLD) for fact in document.facts}
    trained = {example.fact for example in SPLIT.train}
    for example in HELD_OUT:
        assert example.fact in stated
        assert example.fact not in trained
    answers = {example.row["output"] for example in SPLIT.train}
    assert not answers & {example.row["output"] for example in HELD_OUT}


def test_the_vocabulary_was_made_for_the_prompt_that_the_demo_uses() -> None:
    """The frame is written a second time in tiny/build.py; a prompt that drifts away from it would cost tokens."""
    prompt = load_prompt("alpaca_short", tiny_tokenizer())
    rendered = prompt.render([{"role": "user", "content": "Add.", "input": "1 and 2"}], generation_prompt=True)
    assert rendered == FRAME.format(instruction="Add.", input="1 and 2")


def test_the_base_model_is_small_and_carries_no_pickle() -> None:
    files = [path for path in TINY.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 10_000_000
    assert {"model.safetensors", "tokenizer.json", "config.json", "README.md"} <= {path.name for path in files}
    assert not [path for path in files if path.suffix in (".bin", ".pt", ".pkl")]
    config = json.loads((TINY / "config.json").read_text())
    assert (config["model_type"], config["activation_function"]) == ("gpt2", "gelu_new")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The very command of `make demo`."""
    folder = tmp_path_factory.mktemp("demo") / "run"
    words = ["--config", "configs/tiny.yaml", "--output_dir", str(folder), "--disable_tqdm"]
    assert exit_code(lambda: train_sft.main(words)) == 0
    return folder


def test_tuning_turns_known_facts_into_answers(demo: Path) -> None:
    exact = json.loads((demo / "comparison.json").read_text())["metrics"]["exact_match"]
    assert exact["n"] == len(SPLIT.test)
    assert exact["a"] <= 0.05 and exact["b"] >= 0.80  # base, tuned


def test_the_demo_answers_the_held_out_rows(demo: Path) -> None:
    responses = json.loads((demo / "responses.json").read_text())
    assert [(each["instruction"], each["input"], each["output"]) for each in responses] == [
        (example.row["instruction"], example.row["input"], example.row["output"]) for example in SPLIT.test
    ]
