import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
import pytest
from transformers import PreTrainedTokenizerBase

from heed.errors import UserError
from heed.prompts.template import load_prompt
from heed.tokens import encoding
from heed.tokens.encoding import Policy, cache_key, encode_split
from world.small_world import ROOT, records

POLICY = Policy(max_length=256, on_long_row="error", loss_on="response")
ROWS = records(("Name a color.", "Blue."), ("Add 1 and 2.", "The sum of 1 and 2 is 3."))


def test_a_split_becomes_ids_that_decode_to_the_rendering(tokenizer: PreTrainedTokenizerBase) -> None:
    prompt = load_prompt("question", tokenizer)
    encoded = encode_split(ROWS, prompt, POLICY)
    assert encoded.dataset["row_id"][:] == [0, 1]
    example = encoded.dataset[1]
    [[start, end]] = example["spans"]
    assert tokenizer.decode(example["input_ids"][:start]) == "Add 1 and 2."
    assert tokenizer.decode(example["input_ids"][start:end]) == "The sum of 1 and 2 is 3.<|endoftext|>"
    assert encoded.counts["examples"] == encoded.counts["whole"] == 2
    assert encoded.dataset["response_tokens"][:] == [5, 10]  # B l ue . EOS
    assert encoded.counts["tokens"] == sum(len(row["input_ids"]) for row in encoded.dataset)


def test_long_rows_are_an_error_with_their_places_or_counted(tokenizer: PreTrainedTokenizerBase) -> None:
    prompt = load_prompt("question", tokenizer)
    long = records(("Name a color.", "Blue."), ("Say much.", "word " * 100))
    with pytest.raises(UserError, match=r"1 of 2 rows are longer than max_length 20 tokens: rows.json:2.") as error:
        encode_split(long, prompt, replace(POLICY, max_length=20))
    assert "on_long_row: drop | cut_prompt | cut_response" in str(error.value)
    dropped = encode_split(long, prompt, replace(POLICY, max_length=20, on_long_row="drop"))
    assert (dropped.dataset["row_id"][:], dropped.counts["too_long"]) == ([0], 1)
    cut = encode_split(long, prompt, replace(POLICY, max_length=20, on_long_row="cut_response"))
    assert (cut.counts["whole"], cut.counts["cut_response"]) == (1, 1)
    assert len(cut.dataset[1]["input_ids"]) == 20 and 0 not in cut.dataset[1]["input_ids"]


def test_lengths_follow_the_order_of_the_examples_that_are_left(tokenizer: PreTrainedTokenizerBase) -> None:
    rows = records(("Say much.", "word " * 100), ("Name a color.", "Blue."), ("Hi.", "Hi."))
    encoded = encode_split(rows, load_prompt("question", tokenizer), replace(POLICY, max_length=20, on_long_row="drop"))
    assert encoded.dataset["row_id"][:] == [1, 2]
    assert encoded.lengths.dtype == np.int64
    assert encoded.lengths.tolist() == [11, 7]  # N ame a col or . B l ue . EOS; H i . H i . EOS
    backwards = replace(encoded, dataset=encoded.dataset.select([1, 0]))
    assert backwards.lengths.tolist() == [7, 11]


def test_the_second_start_reads_the_ids_from_the_cache(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    prompt = load_prompt("alpaca", tokenizer)
    first = encode_split(ROWS, prompt, POLICY)
    [file] = (tmp_path / "heed").glob("*.arrow")
    assert file.stem == first.cache_key
    written = file.stat().st_mtime_ns
    second = encode_split(ROWS, prompt, POLICY)
    assert second.dataset[:] == first.dataset[:]
    assert file.stat().st_mtime_ns == written


def test_whatever_changes_the_ids_changes_the_cache_key(tokenizer: PreTrainedTokenizerBase) -> None:
    prompt = load_prompt("alpaca", tokenizer)
    keys = [
        cache_key(ROWS, prompt, POLICY),
        cache_key(ROWS, prompt, replace(POLICY, max_length=255)),
        cache_key(ROWS, prompt, replace(POLICY, on_long_row="drop")),
        cache_key(ROWS, prompt, replace(POLICY, loss_on="all")),
        cache_key(ROWS[:1], prompt, POLICY),
        cache_key(ROWS[::-1], prompt, POLICY),
        cache_key(records(("Name a color.", "Red.")), prompt, POLICY),
        cache_key(ROWS, load_prompt("alpaca_short", tokenizer), POLICY),
    ]
    tokenizer.add_tokens(["Blue"])
    keys.append(cache_key(ROWS, load_prompt("alpaca", tokenizer), POLICY))
    assert len(set(keys)) == len(keys), json.dumps(keys, indent=1)


def test_processes_change_neither_ids_nor_order(
    tokenizer: PreTrainedTokenizerBase,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    prompt = load_prompt("alpaca", tokenizer)
    rows = records(*((f"Add {number} and 2.", f"{number + 2}, not <|endoftext|>!") for number in range(50)))
    monkeypatch.setattr(encoding, "CHUNK", 7)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "alone")
    alone = encode_split(rows, prompt, POLICY, num_proc=1)
    assert alone.dataset["input_ids"][:] == [prompt.encode(row.messages).input_ids for row in rows]
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "shared")
    shared = encode_split(rows, prompt, POLICY, num_proc=3)
    assert shared.dataset[:] == alone.dataset[:]
    assert (shared.counts, shared.cache_key) == (alone.counts, alone.cache_key)
    assert shared.lengths.tolist() == alone.lengths.tolist()
    assert "TOKENIZERS_PARALLELISM" not in capfd.readouterr().err  # the warning about a fork


@pytest.mark.parametrize("processes", [1, 2])
def test_a_row_that_breaks_a_law_is_named_and_nothing_is_left(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: int
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    monkeypatch.setattr(encoding, "CHUNK", 1)
    template = tmp_path / "bare.jinja"
    template.write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
    spaced = records(("Name a color.", "Blue."), ("Hi.", "Hi."), ("And now? ", "Red."), ("Or now? ", "Red."))
    with pytest.raises(UserError) as error:
        encode_split(spaced, load_prompt(str(template), tokenizer), POLICY, num_proc=processes)
    assert str(error.value).startswith(
        f"rows.json:3: prompt {str(template)!r}: the prompt ends in a space ('And now? ')"
    )
    assert not list((tmp_path / "heed").iterdir())


def test_ctrl_c_stops_all_processes_and_leaves_nothing_half_done(tmp_path: Path) -> None:
    script = tmp_path / "encode_slowly.py"
    script.write_text(SLOW_TOKENIZING)
    process = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path)],
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None and process.stdout.readline().startswith("a worker is at work")
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to every process
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert errors.endswith("interrupted\n") and "Traceback" not in errors
    assert not list((tmp_path / "heed").iterdir())


SLOW_TOKENIZING = """\
import signal, sys, time
import datasets
from world.small_world import records, tiny_tokenizer
from heed.tokens import encoding
from heed.errors import exit_code
from heed.prompts.template import load_prompt

def wait(*_, **__):
    print("a worker is at work", flush=True)
    time.sleep(60)

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    datasets.config.HF_DATASETS_CACHE = sys.argv[1]
    encoding.fit, encoding.CHUNK = wait, 1
    rows = records(("Name a color.", "Blue."), ("Hi.", "Hi."))
    policy = encoding.Policy(max_length=256, on_long_row="error", loss_on="response")
    prompt = load_prompt("question", tiny_tokenizer())
    sys.exit(exit_code(lambda: encoding.encode_split(rows, prompt, policy, num_proc=2)))
"""
