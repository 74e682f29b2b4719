"""A small evaluation folder with everything in it, its numbers chosen by hand and its texts hostile."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from heed.measure.rows import Row

HOSTILE = "<script>alert(1)</script></script><!-- & \u2028 end"
ANSWERS = {
    "base": ["4", "grass", "an owl", "no"],
    "tuned": ["4", "green", HOSTILE, "an answer that was cut"],
}
QUESTIONS = [
    ("What is 2 + 2?", "4"),
    ("Colour of grass?", "green"),
    ("Which bird hunts at night?", "an owl"),
    ("<b>?</b>", "yes"),
]
EXACT = {"base": [1.0, 0.0, 1.0, 0.0], "tuned": [1.0, 1.0, 0.0, 0.0]}
SCORES: dict[str, list[int | None]] = {"base": [100, 5, 90, 0], "tuned": [100, 95, 10, None]}


def write_lines(path: Path, values: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(value) + "\n" for value in values))


def write_evaluation_folder(folder: Path) -> Path:
    """A run folder with its evaluation: four rows, answered by base and tuned, scored and judged."""
    folder.mkdir(exist_ok=True)
    run: dict[str, Any] = {
        "status": "done",
        "heed": "0.1.0",
        "command": "train_sft.py",
        "started": "2026-11-22",
        "versions": {"torch": "2.13.0"},
    }
    data = {
        "source": "rows.json",
        "format": "alpaca",
        "rows": 40,
        "rejected": 2,
        "rows_sha256": "ab12",
        "files": {"rows.json": "cd34"},
    }
    run |= {"model": "models/tiny-gpt2", "data": data, "splits": {"train": 30, "test": 4, "validation": 4}}
    (folder / "run.json").write_text(json.dumps(run))
    reasons = ["field 'output': is empty", "field 'output': is empty", "<i>odd</i>"]
    write_lines(folder / "rejected.jsonl", [{"row_id": n, "reasons": [reason]} for n, reason in enumerate(reasons)])
    write_lines(
        folder / "metrics.jsonl",
        [
            {"step": 0, "epoch": 0, "eval_loss": 3.0, "eval_rows": 4, "eval_tokens": 40},
            {"step": 5, "epoch": 0.5, "loss": 2.0, "num_input_tokens_seen": 500},
            {"step": 10, "epoch": 1.0, "loss": float("nan"), "num_input_tokens_seen": 1000},
            {"step": 10, "epoch": 1.0, "eval_loss": 1.5, "eval_rows": 4, "eval_tokens": 40},
        ],
    )
    contract = {"prompt": "question", "template": "{{ '<u>' }}", "template_sha256": "ef56", "eos_token": "</s>"}
    golden = {"golden_messages": [{"role": "assistant", "content": "yes"}], "golden_text": "<Q> yes? yes</s>"}
    (folder / "prompt_contract.json").write_text(json.dumps(contract | golden | {"stop_token_ids": [0]}))
    write_answers(folder)
    write_verdicts(folder)
    write_numbers(folder)
    return folder


def write_answers(folder: Path) -> None:
    systems = {}
    for name, answers in ANSWERS.items():
        file = "responses.json" if name == "tuned" else "responses_base.json"
        rows = [
            {"instruction": question, "input": "", "output": reference, "model_response": answer, "row_id": row}
            | {
                "finish_reason": "length" if row == 3 else "eos",
                "prompt_tokens": 9,
                "response_tokens": 5,
                "seconds": 0.1,
            }
            for row, ((question, reference), answer) in enumerate(zip(QUESTIONS, answers, strict=True))
        ]
        rows[1]["flags"] = ["seen_in_training"]
        (folder / file).write_text(json.dumps(rows))
        digest = hashlib.sha256((folder / file).read_bytes()).hexdigest()
        model = {"base": "models/tiny-gpt2", "tuned": "runs/<demo>"}[name]
        systems[name] = {"model": model, "revision": None, "responses": file, "responses_sha256": digest}
    asked: dict[str, Any] = {
        "heed": "0.1.0",
        "systems": systems,
        "data": "rows.json",
        "split": "test",
        "data_sha256": "ab12",
        "n": 4,
    }
    asked |= {"n_full": 4, "limit": None, "prompt": "question", "contract": "ef56", "engine": "batch", "seed": 0}
    asked |= {"max_new_tokens": 64, "versions": {"torch": "2.13.0"}, "command": "eval_responses.py", "device": "cpu"}
    (folder / "evaluation.json").write_text(json.dumps(asked | {"time": "2026-11-22", "seconds": 1.0}))


def write_verdicts(folder: Path) -> None:
    common: dict[str, Any] = {"judge": "openai:judge", "prompt": "rubric"}
    verdicts = [
        common
        | {"kind": "score", "name": name, "row_id": row, "control": None, "score": score}
        | {"failure": "garbage" if score is None else None, "reason": f"because <i>{score}</i>", "raw": "<hr>"}
        for name, scores in SCORES.items()
        for row, score in enumerate(scores)
    ]
    pair: dict[str, Any] = {
        "kind": "pair",
        "a": "base",
        "b": "tuned",
        "row_id": 1,
        "control": None,
        "first": "a",
        "winner": "b",
        "failure": None,
        "reason": "right",
    }
    pairs = [pair, pair | {"first": "b", "winner": "tie", "reason": "the same"}]
    pairs.append(pair | {"a": "empty", "b": "reference", "control": "empty"})
    write_lines(folder / "judge.jsonl", [*verdicts, *(common | each for each in pairs)])
    (folder / "judge_summary.json").write_text(json.dumps(judging()))


def judging(*, passed: bool = True, withheld: bool = False) -> dict[str, Any]:
    base: dict[str, Any] = {
        "mean": 48.75,
        "ci95": [2.5, 95.0],
        "n": 4,
        "failures": {},
        "failure_rate": 0.0,
        "withheld": False,
    }
    tuned: dict[str, Any] = {"mean": None if withheld else 68.3, "ci95": None if withheld else [10.0, 100.0], "n": 3}
    tuned |= {"failures": {"garbage": 1}, "failure_rate": 0.25, "withheld": withheld}
    controls = {"reference": 95.0, "empty": 0.0, "shuffled": 10.0, "injection": 5.0 if passed else 80.0}
    pairs: dict[str, Any] = {
        "wins": 1,
        "ties": 0,
        "losses": 0,
        "failures": 0,
        "failure_reasons": {},
        "n_full": 1,
        "withheld": False,
        "win_rate": 1.0,
        "ci95": None,
        "consistency": 1.0,
    }
    judge: dict[str, Any] = {"judge": "openai:judge", "prompt": "rubric", "scores": {"base": base, "tuned": tuned}}
    judge |= {
        "controls": {
            "passed": passed,
            "text": "as <expected>" if passed else "It was talked into 80.",
            "scores": controls,
        }
    }
    judge |= {"pairs": {"base vs tuned": pairs | {"first_position_rate": 0.5}}, "length_correlation": {"tuned": -0.2}}
    judge |= {"server": "http://127.0.0.1:8000/v1 judge", "library": "openai 2.0", "prompts_sha256": {"rubric": "ab"}}
    judge |= {"pair_controls": {"passed": passed, "text": "wins"}, "stopped": None}
    judge |= {"requests": 9, "cached": 1, "prompt_tokens": 900, "completion_tokens": 90, "cost": None, "seconds": 2.0}
    return {"judges": [judge], "agreement": []}


def write_numbers(folder: Path) -> None:
    write_lines(
        folder / "items.jsonl",
        [
            {"name": name, "row_id": row, "metrics": {"exact_match": value}}
            for name, values in EXACT.items()
            for row, value in enumerate(values)
        ],
    )
    exact = {"a": 0.5, "b": 0.5, "difference": 0.0, "ci95": [-0.75, 0.75], "n": 4, "wins": 1, "ties": 2, "losses": 1}
    exact["better"] = "higher"
    length = exact | {"a": 2.0, "b": 1.0, "difference": -1.0, "ci95": [-1.5, -0.5], "better": "neither"}
    length |= {"wins": None, "ties": None, "losses": None}
    worse = [{"row_id": 2, "metric": "exact_match", "a": 1.0, "b": 0.0}]
    comparison = {"a": "base", "b": "tuned", "metrics": {"exact_match": exact, "length_ratio": length}, "worse": worse}
    (folder / "comparison.json").write_text(json.dumps(comparison))
    rows = [row(name=name, value=0.5, ci95=(0.0, 1.0)) for name in ("base", "tuned")]
    rows += [row(name="tuned", system="MMLU", task="mmlu<1>", metric="acc", value=0.31, ci95=(0.3, 0.32), chance=0.25)]
    write_lines(folder / "rows.jsonl", [asdict(each) for each in rows])


def row(**changes: Any) -> Row:
    values: dict[str, Any] = {
        "system": "metrics",
        "task": "test",
        "metric": "exact_match",
        "n": 4,
        "n_full": 4,
        "model": "m",
    }
    values |= {"contract": "ef56", "data": "rows.json", "data_sha256": "ab12", "library": "heed", "versions": {}}
    return Row(**(values | {"command": "eval_responses.py"} | changes))
