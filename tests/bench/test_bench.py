"""The benchmark compares like with like. Nothing here is timed."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch

from bench import cpu, generation, gpu
from bench.bundle import write_driver
from bench.jobs import Job, labels
from bench.measure import ratios, result, run_apart
from bench.rows import EOS, answered, examples, make_rows
from bench.variants import VARIANTS, missing
from heed.tokens.batches import IGNORE

TINY = Job(shape="tiny_neox", dtype="fp32", warm_up=1, steps=2, learning_rate=0.0)
OTHER_BATCHES = ("sft_grouped", "sft_packing")


@cache
def textbook() -> dict[str, float]:
    return run_apart("textbook", TINY, TINY.examples())


def skip_if_missing(name: str) -> None:
    if reason := missing(name):
        pytest.skip(reason)


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_every_tool_computes_the_same_loss_on_the_same_batches(name: str) -> None:
    """At a learning rate of 0, so that neither optimizers nor schedules come into it."""
    skip_if_missing(name)
    found, wanted = run_apart(name, TINY, TINY.examples()), textbook()
    if name in OTHER_BATCHES:
        assert found["loss"] == pytest.approx(wanted["loss"], abs=0.1)
        return
    assert found["loss"] == pytest.approx(wanted["loss"], abs=1e-2 if name == "sft_defaults" else 1e-4)  # bf16 there
    assert [found[key] for key in ("examples", "tokens", "supervised")] == [16, wanted["tokens"], wanted["supervised"]]


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_every_tool_learns(name: str) -> None:
    """Eight rows, again and again."""
    skip_if_missing(name)
    job = replace(TINY, steps=30, learning_rate=0.01)
    rows = job.examples().select([*range(8)] * job.all_steps)
    assert run_apart(name, job, rows)["loss"] < textbook()["loss"] - 0.5


# What the real rows gave, with GPT-2's tokenizer: the figures that SETS in bench/rows.py imitates.
@pytest.mark.parametrize(
    ("name", "prompt", "response", "padded"), [("short", 44.3, 13.1, 1.232), ("alpaca", 53.6, 150.5, 2.04)]
)
def test_synthetic_rows_are_as_long_as_the_real_ones(name: str, prompt: float, response: float, padded: float) -> None:
    rows = examples(name, 8000, vocabulary=50257)
    lengths = [(start, end - start) for [[start, end]] in rows["spans"]]
    assert sum(p for p, _ in lengths) / 8000 == pytest.approx(prompt, rel=0.02)
    assert sum(r for _, r in lengths) / 8000 == pytest.approx(response, rel=0.02)
    totals = [p + r for p, r in lengths]
    assert sum(8 * max(totals[start : start + 8]) for start in range(0, 8000, 8)) / sum(totals) == pytest.approx(
        padded, rel=0.03
    )


def test_synthetic_rows_share_their_preamble_and_end_in_eos() -> None:
    short, alpaca = (examples(name, 200, vocabulary=2000)["input_ids"] for name in ("short", "alpaca"))
    assert len({tuple(ids[:24]) for ids in short}) == 1
    assert len({tuple(ids[:8]) for ids in alpaca}) == 1
    assert len({tuple(ids[:24]) for ids in alpaca}) == 2
    assert all(ids[-1] == EOS and EOS not in ids[:-1] for ids in examples("short", 50, vocabulary=2000)["input_ids"])


def test_chats_have_ten_turns_and_one_preamble() -> None:
    [chat] = make_rows("chats", 1, vocabulary=2000)
    turns = examples("short", 5, vocabulary=2000)
    first, second = turns[0]["input_ids"], turns[1]["input_ids"]
    assert chat["input_ids"][: len(first) + 10] == [*first, *second[24:34]] and len(chat["spans"]) == 5
    answers = [ids[start:] for ids, [[start, _]] in zip(turns["input_ids"], turns["spans"], strict=True)]
    assert [chat["input_ids"][start:end] for start, end in chat["spans"]] == answers
    assert (chat["tokens"], chat["response_tokens"]) == (sum(turns["tokens"]) - 4 * 24, sum(turns["response_tokens"]))
    labelled = labels(chat, "response")
    assert sum(label != IGNORE for label in labelled) == chat["response_tokens"]
    assert labels(chat, "all") == [IGNORE, *chat["input_ids"][1:]]


@pytest.mark.slow
@pytest.mark.parametrize(
    "job",
    [
        replace(TINY, rows="chats", batch_size=2),
        replace(TINY, rows="answers"),
        replace(TINY, loss_on="all"),
        replace(TINY, lora_rank=4),
        replace(TINY, shape="tiny_llama"),
    ],
    ids=lambda job: job.name,
)
def test_every_job_is_the_same_for_all_tools(job: Job) -> None:
    wanted = run_apart("textbook", job, job.examples())
    for name in ("heed", "trainer", "sft_padding_free"):
        skip_if_missing(name)
        found = run_apart(name, job, job.examples())
        assert found["loss"] == pytest.approx(wanted["loss"], abs=1e-4), name
        assert [found[key] for key in ("examples", "tokens", "supervised")] == [
            wanted[key] for key in ("examples", "tokens", "supervised")
        ]
        assert found["computed"] <= found["tokens"] and (found["computed"] < found["tokens"]) is (name == "heed")


def test_ratios_are_paired_by_round() -> None:
    ours = [{"seconds": 1.0, "cpu_seconds": 2.0, "examples": 8}, {"seconds": 10.0, "cpu_seconds": 2.0, "examples": 8}]
    theirs = [{"seconds": 2.0, "cpu_seconds": 4.0, "examples": 8}, {"seconds": 30.0, "cpu_seconds": 4.0, "examples": 4}]
    assert ratios(ours, theirs) == {"wall": [4.0, 2.0, 6.0], "cpu": [3.0, 2.0, 4.0]}


def test_what_is_wanted_of_sft_is_wanted_of_its_best_setting() -> None:
    run = {
        "seconds": 1.0,
        "cpu_seconds": 1.0,
        "examples": 8,
        "tokens": 80,
        "supervised": 8,
        "computed": 60,
        "scored": 8,
        "peak_mb": 1.0,
        "loss": 7.0,
    }
    runs = {"heed": [run], "sft_defaults": [run | {"seconds": 3.0}], "sft_grouped": [run | {"seconds": 2.0}]}
    found = result(TINY, runs, {"sft_best": 2.0}, limit=1.0)
    assert found["at_least"] == {"sft_grouped": 2.0}
    assert found["heed_is_faster"]["sft_grouped"]["wall"] == [2.0, 2.0, 2.0]


@pytest.mark.slow  # a process of its own imports what the tools need
def test_a_tool_that_fails_is_named() -> None:
    with pytest.raises(RuntimeError, match=r"(?s)heed on tiny_neox, fp32, short rows: .*KeyError: .spans"):
        run_apart("heed", TINY, TINY.examples().remove_columns("spans"))


def test_the_cpu_benchmark_writes_figures_and_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = replace(cpu.COMPARISONS["shapes"][0], job=replace(TINY, shape="tiny"), variants=("heed", "trainer"))
    monkeypatch.setitem(cpu.COMPARISONS, "shapes", (tiny,))
    monkeypatch.setattr("bench.limit.SECONDS", 0.0)
    out, page = tmp_path / "figures.json", tmp_path / "page.md"
    page.write_text("before\n<!-- figures -->\nold\n<!-- /figures -->\nafter\n")
    cpu.main(["--rounds", "2", "--out", str(out), "--page", str(page)])
    found = json.loads(out.read_text())["results"][0]
    assert [len(variant["runs"]) for variant in found["variants"].values()] == [2, 2]
    assert found["limit_tflops"] > 0
    text = page.read_text()
    assert text.startswith("before\n<!-- figures -->\nMachine: ") and text.endswith("<!-- /figures -->\nafter\n")
    assert "old" not in text and "| trainer |" in text and "3.5 x |" in text


def test_the_generation_benchmark_compares_engines_that_write_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generation, "COMPARISONS", (generation.Comparison(shape="tiny", prompts=4, mean=6, threads=1),))
    monkeypatch.setattr(generation, "MOST", 9)
    out, page = tmp_path / "figures.json", tmp_path / "page.md"
    page.write_text("before\n<!-- figures -->\nold\n<!-- /figures -->\nafter\n")
    engines = ["padded", "batch"]
    threads = torch.get_num_threads()
    generation.main(["--rounds", "1", "--engines", *engines, "--out", str(out), "--page", str(page)])
    torch.set_num_threads(threads)
    found = json.loads(out.read_text())["results"][0]["engines"]
    assert list(found) == ["one", *engines] and [len(each["runs"]) for each in found.values()] == [1] * 3
    assert {run["tokens"] for each in found.values() for run in each["runs"]} == {found["one"]["runs"][0]["tokens"]}
    assert "| batch |" in page.read_text() and "| 8.0 x |" in page.read_text()


def test_answers_to_one_question_begin_alike_and_end_as_before() -> None:
    rows = examples("short", 6, vocabulary=2000)
    asked = answered(rows, 2)
    starts = [start for [[start, _]] in asked["spans"]]
    prompts = [ids[:start] for ids, start in zip(asked["input_ids"], starts, strict=True)]
    assert prompts[::2] == prompts[1::2] and prompts[0] != prompts[2]
    answers = [ids[start:] for ids, start in zip(asked["input_ids"], starts, strict=True)]
    assert answers == [ids[start:] for ids, [[start, _]] in zip(rows["input_ids"], rows["spans"], strict=True)]
    assert asked["tokens"] == list(map(len, asked["input_ids"]))


@pytest.mark.slow
def test_the_bundle_for_a_gpu_is_rehearsed_on_a_cpu(tmp_path: Path) -> None:
    write_driver(tmp_path)
    options = ["--device", "cpu", "--shape", "tiny", "--rounds", "1", "--steps", "1", "--seconds", "15"]
    command = ["bash", str(tmp_path / "run.sh"), *options, "--out", str(tmp_path / "gpu.json"), "--page", "none"]
    subprocess.run(command, check=True, env=os.environ | {"PYTHON": sys.executable})
    report = json.loads((tmp_path / "gpu.json").read_text())
    losses = report["also"]["losses_with_trees_fp32"]
    assert losses["heed"] == pytest.approx(losses["textbook"], abs=1e-4)


@pytest.mark.slow
def test_the_gpu_benchmark_runs_without_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "SFT", ())
    monkeypatch.setattr("bench.recipe.TRAINED_ON", 40)
    out = tmp_path / "figures.json"
    options = [
        "--device",
        "cpu",
        "--shape",
        "tiny",
        "--rounds",
        "1",
        "--steps",
        "1",
        "--page",
        str(tmp_path / "none.md"),
    ]
    gpu.main([*options, "--out", str(out)])
    report = json.loads(out.read_text())
    told = list(report["also"])
    assert (
        told.index("losses_with_trees_fp32") < told.index("losses_of_graph_and_eager_fp32") < told.index("losses_fp32")
    )
    assert not [value for value in report["also"].values() if str(value).startswith("FAILED")]
    assert [found["job"]["rows"] for found in report["results"]] == ["short", "alpaca"]
    assert report["also"]["losses_fp32"]["heed"] == pytest.approx(report["also"]["losses_fp32"]["textbook"], abs=1e-4)
    assert report["also"]["recipe_seconds_heed_bf16"] > 0
