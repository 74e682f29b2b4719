import json
from pathlib import Path

import datasets
import numpy as np
import pytest

from faults.harness import write_config
from heed.training import earlier, preflight
from heed.training.earlier import Earlier
from world.short_run import run
from world.training import trainer_of


def metrics_of(config: Path) -> list[dict[str, float]]:
    lines = (config.parent / "run" / "metrics.jsonl").read_text().splitlines()
    return [
        {name: value for name, value in json.loads(line).items() if name not in ("seconds", "learning_rate")}
        for line in lines
    ]


def test_a_second_start_takes_from_the_first_what_lies_before_step_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(earlier, "LONG", 0.0)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    config = write_config(tmp_path)
    again = ("--max_steps", "1", "--logging_steps", "1", "--verbose", "--overwrite_output_dir", "true")
    assert run(config, *again) == 0
    first, said = metrics_of(config), capsys.readouterr().out
    assert "earlier start" not in said

    assert run(config, *again, "--learning_rate", "1e-3") == 0
    second, said = metrics_of(config), capsys.readouterr().out
    assert "with the 4 longest rows" in said and "as an earlier start did it" in said
    assert said.count("as an earlier start of the same training measured it") == 2
    assert first[:2] == second[:2]  # what was measured before the first step
    assert first[2]["loss"] == second[2]["loss"]  # and the first step knows nothing of it

    for other in (("--dtype", "bfloat16"), ("--loss_on", "all"), ("--per_device_train_batch_size", "2")):
        assert run(config, *again, *other) == 0
        assert "earlier start" not in capsys.readouterr().out


def test_a_rehearsal_is_made_again_where_less_memory_is_free_than_it_took(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = trainer_of(tmp_path)
    trainer.earlier = Earlier(tmp_path / "start.json")
    rehearsal = preflight.Rehearsal(trainer, None, print)
    assert rehearsal.known(trainer.args.device) is None
    trainer.earlier.keep("rehearsal", {"more": 1000}, 10.0)
    monkeypatch.setattr(preflight, "free_memory", lambda device: 1000)
    assert rehearsal.known(trainer.args.device) == {"more": 1000}
    monkeypatch.setattr(preflight, "free_memory", lambda device: 999)
    assert rehearsal.known(trainer.args.device) is None


def test_what_took_no_time_is_not_kept_and_a_damaged_file_counts_as_none(tmp_path: Path) -> None:
    found = Earlier(tmp_path / "start.json")
    found.keep("eval", {"eval_loss": 1.0}, 1.9)
    assert found.known("eval") is None
    found.keep("eval", {"eval_loss": float(np.float64(1.25))}, 2.0)
    assert found.known("eval") == {"eval_loss": 1.25}
    found.path.write_text("{")
    assert found.known("eval") is None
