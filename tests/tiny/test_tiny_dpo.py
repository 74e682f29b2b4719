"""What preference tuning does on the tiny world: the words change, the facts stay."""

import json
from pathlib import Path

import pytest

import eval_responses
import train_dpo
import train_sft
from heed.errors import exit_code
from tiny.preferences import Score, save, score
from tiny.world import load_world
from world.small_world import ROOT

WORLD = load_world()


def answers(run: Path) -> Score:
    told = ["generate", "--model_name_or_path", str(run), "--max_new_tokens", "48", "--controls", "[]"]
    assert exit_code(lambda: eval_responses.main(told)) == 0
    return score(WORLD, json.loads((run / "responses.json").read_text()))


@pytest.mark.slow
def test_three_hundred_pairs_teach_a_wording_and_cost_no_facts(tmp_path: Path) -> None:
    save(WORLD, tmp_path)
    rows, pairs, sft, dpo = (str(tmp_path / name) for name in ("rows.json", "pairs.jsonl", "sft", "dpo"))
    quick = ["--compare_with_base", "false"]
    told = ["--config", str(ROOT / "configs/tiny.yaml"), "--data", rows, "--output_dir", sft, *quick]
    assert exit_code(lambda: train_sft.main(told)) == 0
    told = ["--config", str(ROOT / "configs/dpo.yaml"), "--model_name_or_path", sft, "--pairs", pairs]
    assert exit_code(lambda: train_dpo.main([*told, "--output_dir", dpo, *quick])) == 0
    before, after = answers(Path(sft)), answers(Path(dpo))
    assert before.n == after.n == 150
    assert 60 <= before.preferred <= 100  # about one half
    assert after.preferred >= 135
    assert after.facts >= before.facts - 3
