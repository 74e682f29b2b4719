"""Several runs by one command, compared; and what a real run says of its rows."""

import json
import random
from pathlib import Path

import numpy as np
import pytest

import inspect_data
import train_sft
from heed.errors import exit_code
from heed.runs.finished import set_aside
from heed.study.row_map import row_map
from world.small_world import ROOT

TINY_CONFIG = [
    "--config",
    str(ROOT / "configs" / "tiny.yaml"),
    "--disable_tqdm",
    "true",
    "--sample_max_new_tokens",
    "0",
]


def test_seeds_are_runs_of_their_own_and_one_recipe_and_are_not_trained_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    top = tmp_path / "runs"
    words = [
        *TINY_CONFIG,
        "--output_dir",
        str(top),
        "--seeds",
        "0,1",
        "--max_steps",
        "2",
        "--compare_max_new_tokens",
        "2",
    ]
    words += ["--train_share", "0.05", "--split_shares", "0.98,0.01,0.01"]
    assert exit_code(lambda: train_sft.main(words)) == 0
    assert "One recipe, runs (2 seeds): exact match" in capsys.readouterr().out
    [recipe] = json.loads((top / "compared.json").read_text())["recipes"]
    assert recipe["runs"] == ["seed-0", "seed-1"]
    assert '<a href="../compared.html">' in (top / "seed-1" / "report.html").read_text()
    facts = json.loads((top / "seed-1" / "run.json").read_text())
    assert facts["encoded"]["train"]["rows"] == 74  # a twentieth of 1,470 rows, rounded to even
    assert facts["peak_memory_bytes"] > 0
    assert exit_code(lambda: train_sft.main(words)) == 0
    assert capsys.readouterr().out.count("is finished; overwrite_output_dir: true starts over") == 2


@pytest.mark.slow
def test_rows_with_another_rows_answer_are_those_that_a_run_never_learned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """5 % of the embedded training rows: an area under the ROC of 0.95 at least, four fifths among the 5 % worst."""
    monkeypatch.chdir(ROOT)
    rows = json.loads((ROOT / "data" / "instructions.json").read_text())
    wrong = sorted(random.Random(7).sample(range(1275), 64))
    answers = [rows[row]["output"] for row in wrong]
    for row, answer in zip(wrong, answers[1:] + answers[:1], strict=True):
        rows[row]["output"] = answer
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    run = tmp_path / "run"
    words = ["--data", str(tmp_path / "rows.json"), "--output_dir", str(run), "--compare_with_base", "false"]
    assert exit_code(lambda: train_sft.main([*TINY_CONFIG, *words, "--record_row_loss", "true"])) == 0
    ranks = np.array([row.record.row_id in set(wrong) for row in row_map(run, set_aside(run, "train"))])
    right_below = np.cumsum(~ranks[::-1])[::-1][ranks]  # right rows with a lower loss, for each wrong one
    assert right_below.mean() / (~ranks).sum() >= 0.95
    assert ranks[:64].mean() >= 0.8
    inspect_data.main(["--run", str(run), "--map"])
    listed = [json.loads(line) for line in (run / "suspects.jsonl").read_text().splitlines()]
    assert len({each["row_id"] for each in listed} & set(wrong)) >= 60
