"""A prepared set trains as the same rows from memory do, and no process reads them."""

import json
import multiprocessing
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from faults.harness import logged, weights, write_config
from heed.config import SftConfig
from heed.data.sources import Source, read, source_name
from heed.data.splits import split_records
from heed.errors import UserError
from heed.prompts.template import Prompt, load_prompt, make_prompt
from heed.runs.finished import set_aside
from heed.tokens import chunks, prepared, shards
from heed.tokens.encoding import Policy, encode_split
from heed.tokens.recipe import Recipe, make_recipe
from heed.training import plan
from world.loopback_hub import environment, serve
from world.small_world import ROOT, TINY, tiny_tokenizer

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


def source_of(data: Path | str) -> Source:
    return Source(data=str(data), on_bad_row="drop")


def recipe(prompt: Prompt, data: Path | str, **changes: Any) -> Recipe:
    choices = {"split": "hash", "shares": SHARES, "source_splits": {}, "mixture": {}} | changes
    return make_recipe(source_of(data), prompt, POLICY, **choices)


def prepare(data: Path | str, folder: Path, prompt: Prompt, num_proc: int = 1, **changes: Any) -> dict[str, Any]:
    return prepared.prepare(recipe(prompt, data, **changes), folder, num_proc=num_proc, say=lambda text: None)


def test_rows_that_a_template_refuses_are_bad_rows(tmp_path: Path) -> None:
    template = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "{{ m.content + '\n' }}{% endfor %}"
    )
    answered = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]
    turns = [answered, [{"role": "system", "content": "Be kind."}, *answered], answered]
    data = tmp_path / "chats.jsonl"
    data.write_text("".join(json.dumps({"messages": each}) + "\n" for each in turns))
    facts = prepare(data, tmp_path / "set", make_prompt("own", template, tiny_tokenizer()), shares=(1.0, 0.0, 0.0))
    assert (facts["rejected"], facts["counts"]["in train"]) == (1, 2)

    # Whoever reads a run's training rows again leaves out the same.
    run = tmp_path / "run"
    keys: dict[str, Any] = {"data": str(data), "prepared": str(tmp_path / "set"), "on_bad_row": "drop"}
    keys |= {"split": "hash", "split_shares": [1.0, 0.0, 0.0], "model_name_or_path": str(TINY)}
    run.mkdir()
    (run / "resolved_config.json").write_text(json.dumps({name: {"value": value} for name, value in keys.items()}))
    (run / "run.json").write_text(json.dumps({"data": {"rows_sha256": facts["rows_sha256"]}}))
    assert [record.row_id for record in set_aside(run, "train")] == [0, 2]


@pytest.mark.parametrize("num_proc", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_shards_contain_what_is_encoded_from_memory(
    tmp_path: Path, prompt: Prompt, num_proc: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "CHUNK", 40)
    monkeypatch.setattr(shards, "SHARD", 100)
    data = write_rows(tmp_path / "rows.jsonl", 300)
    with data.open("a") as file:
        file.write('\n{"instruction": "no output"}\n')
    facts = prepare(data, tmp_path / "set", prompt, num_proc)

    rows = read(Source(data=str(data), on_bad_row="drop")).rows
    splits = split_records(rows.records, how="hash", shares=SHARES, source_splits={})
    wanted = encode_split(splits["train"], prompt, POLICY)
    found = prepared.load(tmp_path / "set", recipe(prompt, data))
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
    web = [json.loads(line) for line in (folder / "web.jsonl").read_text().splitlines()]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(web), folder / "web.parquet")
    (folder / "web.jsonl").unlink()
    facts = prepare(
        folder, tmp_path / "set", prompt, mixture={"web.parquet": 0.5, "books.jsonl": 2.0}, shares=(1, 0, 0)
    )
    counts = facts["counts"]
    assert counts[f"from {folder / 'books.jsonl'}"] == 800
    assert 160 < counts[f"from {folder / 'web.parquet'}"] < 240
    assert counts["examples"] == 800 + counts[f"from {folder / 'web.parquet'}"]
    with pytest.raises(UserError, match=r"mixture: 'wep.jsonl' is not one of the files"):
        prepare(folder, tmp_path / "other", prompt, mixture={"wep.jsonl": 0.5})


def test_what_does_not_fit_is_refused(tmp_path: Path, prompt: Prompt) -> None:
    data, folder = write_rows(tmp_path / "rows.jsonl", 60), tmp_path / "set"
    prepare(data, folder, prompt)
    with pytest.raises(UserError, match="exists already; choose another folder or delete it"):
        prepare(data, folder, prompt)
    with pytest.raises(UserError, match="split: a prepared set is split as its rows are read"):
        recipe(prompt, data, split=None)
    with pytest.raises(UserError, match=r"was made with template: .*, and the run says .* \(differing: template\)"):
        prepared.load(folder, recipe(load_prompt("chatml", tiny_tokenizer()), data))
    facts = json.loads((folder / "prepared.json").read_text())
    (folder / "prepared.json").write_text(json.dumps({**facts, "format": 1}))
    with pytest.raises(
        UserError, match="was written by another version of Heed, which stored examples differently; prep"
    ):
        prepared.check_source(folder, source_of(data))
    (folder / "prepared.json").write_text(json.dumps(facts))
    shard = folder / "train-00000.arrow"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"train-00000\.arrow is missing or has changed in size since it was written"):
        prepared.load(folder, recipe(prompt, data))
    with pytest.raises(UserError, match=r"has no prepared\.json; write the folder with --prepare first"):
        prepared.read_facts(tmp_path)


def test_a_set_of_other_data_or_of_files_that_have_changed_is_refused(tmp_path: Path, prompt: Prompt) -> None:
    data, folder = write_rows(tmp_path / "rows.jsonl", 60), tmp_path / "set"
    prepare(data, folder, prompt)
    data.touch()
    prepared.check_source(folder, source_of(data))
    with data.open("a") as file:
        file.write('\n{"instruction": "one more", "output": "row"}')
    with pytest.raises(UserError, match=r"rows\.jsonl is not what .*set was made from on 20.*; prepare another folder"):
        prepared.check_source(folder, source_of(data))
    data.unlink()  # another machine need not have it
    prepared.check_source(folder, source_of(data))
    with pytest.raises(UserError, match=r"was made with data: .*rows\.jsonl, and the run says other\.jsonl"):
        prepared.check_source(folder, source_of("other.jsonl"))


def test_nothing_is_left_of_a_set_that_was_not_finished(tmp_path: Path, prompt: Prompt) -> None:
    data, folder, part = write_rows(tmp_path / "rows.jsonl", 60), tmp_path / "set", tmp_path / "set.part"
    with data.open("a") as file:
        file.write('\n{"instruction": "no output"}')
    strict = replace(recipe(prompt, data), source=Source(data=str(data)))
    with pytest.raises(UserError, match=r"rows\.jsonl:61: .*output.*\nFix them, or set on_bad_row: drop"):
        prepared.prepare(strict, folder, num_proc=1, say=print)
    assert not folder.exists() and not part.exists()
    part.mkdir()
    (part / "train-00007.arrow").write_text("left by a process that was killed")
    prepare(data, folder, prompt)
    assert sorted(path.name for path in folder.iterdir()) == [
        "prepared.json",
        "rejected.jsonl",
        "test.jsonl",
        "train-00000.arrow",
        "validation.jsonl",
    ]


HOLD = "import fcntl, sys; file = open(sys.argv[1], 'a'); fcntl.lockf(file, fcntl.LOCK_EX); print(); sys.stdin.read()"


def test_two_processes_do_not_write_one_set(tmp_path: Path, prompt: Prompt) -> None:
    data, part = write_rows(tmp_path / "rows.jsonl", 60), tmp_path / "set.part"
    part.mkdir()
    command = [sys.executable, "-c", HOLD, str(part / ".lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline()
        with pytest.raises(UserError, match=r"another process is writing .*set; wait for it"):
            prepare(data, tmp_path / "set", prompt)
        other.terminate()
    assert part.is_dir()


@pytest.mark.slow
def test_a_process_that_is_killed_ends_the_preparation(
    tmp_path: Path, prompt: Prompt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "CHUNK", 40)

    def kill_one() -> None:
        while not (children := multiprocessing.active_children()):
            time.sleep(0.05)
        children[0].kill()

    killer = threading.Thread(target=kill_one)
    killer.start()
    with pytest.raises(UserError, match="a process that tokenizes was killed"):
        prepare(write_rows(tmp_path / "rows.jsonl", 300), tmp_path / "set", prompt, num_proc=2)
    killer.join()
    assert not (tmp_path / "set.part").exists()


def test_every_kind_of_place_names_its_source() -> None:
    places = [
        "a/b, c.jsonl:12",
        "rows.json:3 (row 1)",
        "x.parquet, row 7",
        "me/rows, train row 1",
        "http://h:80/r.csv:2",
    ]
    assert [source_name(place) for place in places] == [
        "a/b, c.jsonl",
        "rows.json",
        "x.parquet",
        "me/rows",
        "http://h:80/r.csv",
    ]


@pytest.mark.slow
def test_a_hub_set_is_prepared_with_its_own_splits(tmp_path: Path) -> None:
    data = tmp_path / "hub" / "datasets" / "me" / "rows" / "data"
    data.mkdir(parents=True)
    for split, rows in (("train", 40), ("eval", 6)):
        texts = [f"{split} {row}" for row in range(rows)]
        columns = {"question": texts, "answer": [f"Answer {text}." for text in texts]}
        pyarrow.parquet.write_table(pyarrow.table(columns), data / f"{split}-00000-of-00001.parquet")
    config = write_config(
        tmp_path, text="split: source\nsource_splits: {train: train, validation: eval, test: eval}\nmax_length: 200\n"
    )
    words = ["--config", str(config), "--output_dir", str(tmp_path / "run"), "--data", "me/rows", "--prepare"]
    words += ["--prepared", str(tmp_path / "set"), "--mixture", "{rows: 2}"]
    with serve(tmp_path / "hub") as endpoint:
        variables = environment(endpoint, tmp_path / "home") | {"OMP_NUM_THREADS": "1"}
        command = [sys.executable, "train_sft.py", *words]
        done = subprocess.run(command, env=variables, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"prepared  {tmp_path / 'set'}: 80 training examples of 46 rows",
        "          80 from me/rows",
        "          6 in test",
        "          40 in train",
        "          6 in validation",
        "audit     none of a prepared set; inspect_data.py with the same config looks at its rows",
    ]


def test_a_run_from_a_prepared_set_learns_what_one_from_memory_learns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from world.short_run import run

    text = (
        "split: hash\nsplit_shares: [0.8, 0.1, 0.1]\nmax_length: 200\nmax_steps: 4\naudit_allow: [near_split_overlap]\n"
    )
    config = write_config(tmp_path, rows=60, text=text)
    config.write_text(config.read_text().replace("num_train_epochs: 3\n", ""))
    with monkeypatch.context() as patched:
        patched.setattr("heed.tokens.encoding.encode_rows", None)  # the audit's tokens are trained on
        assert run(config) == 0
    plain = tmp_path / "plain"
    (tmp_path / "run").rename(plain)
    chosen = ("--prepared", str(tmp_path / "set"))
    assert run(config, *chosen, "--prepare") == 0
    assert run(config, *chosen, "--compare_with_base", "true", "--compare_max_new_tokens", "2") == 0
    assert logged(tmp_path / "run") == logged(plain)
    assert weights(tmp_path / "run") == weights(plain)
    assert set_aside(tmp_path / "run", "test") == set_aside(plain, "test")
    assert (tmp_path / "run" / "comparison.json").is_file()
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["data"]["rows_sha256"] == json.loads((plain / "run.json").read_text())["data"]["rows_sha256"]


@pytest.mark.parametrize("name", ["test.jsonl", "rows/dev/a.jsonl", "train_test.jsonl"])
def test_a_test_set_is_not_prepared_for_training(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    write_rows(tmp_path / name, 3)
    keys: dict[str, Any] = {
        "model_name_or_path": str(TINY),
        "prompt": "alpaca_short",
        "max_length": 64,
        "split": "hash",
    }
    sft = SftConfig(data=str(tmp_path), prepared=str(tmp_path / "set"), **keys)
    with pytest.raises(UserError, match=r"split: hash would train on rows|names more than one split"):
        plan.prepare(sft, print)
    assert not (tmp_path / "set").exists()
