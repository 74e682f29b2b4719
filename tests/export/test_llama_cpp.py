"""Whole runs as GGUF files: llama.cpp answers their held-out rows as they do (`make export-setup`)."""

import os
from pathlib import Path

import pytest
import yaml

import train_sft
from demo_real import rows
from heed.errors import exit_code
from heed.export import convert, llama_cpp
from heed.export.__main__ import export, main
from world.small_world import MODELS, ROOT, save_model

REAL = Path(os.environ.get("HEED_REAL_MODEL", str(ROOT / ".cache" / "smollm2" / "SmolLM2-135M-Instruct.Q4_1.gguf")))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not convert.is_installed() or llama_cpp.command() is None, reason="make export-setup"),
]


def trained(folder: Path, *words: str, config: str = "configs/tiny.yaml") -> str:
    run = str(folder / "run")
    told = ["--config", config, "--output_dir", run, "--eval_strategy", "no", "--compare_with_base", "false"]
    assert exit_code(lambda: train_sft.main([*told, "--save_strategy", "no", *words])) == 0
    return run


@pytest.mark.parametrize("type", ["f16", "q8_0"])
def test_the_embedded_model_answers_there_as_here(tmp_path: Path, type: str) -> None:
    run = trained(tmp_path, "--num_train_epochs", "1")
    told = export(run, tmp_path / "out", type=type)
    assert "llama.cpp answers 20 of 20 held-out rows" in told
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["Modelfile", "README.md", f"run-{type}.gguf"]


def test_an_adapter_is_merged_first(tmp_path: Path) -> None:
    run = trained(tmp_path, "--num_train_epochs", "0.5", "--use_peft", "true", "--learning_rate", "3e-3")
    assert exit_code(lambda: main([run, "--to", "gguf", "--out", str(tmp_path / "out")])) == 0
    assert "Proved: llama.cpp answers 20 of 20" in (tmp_path / "out" / "README.md").read_text()


def test_a_neox_with_a_preamble_that_depends_on_the_input_answers_there_as_here(tmp_path: Path) -> None:
    base = save_model(tmp_path / "base", MODELS["gpt_neox"](hidden_size=64, intermediate_size=128))
    words = ["--prompt", "alpaca", "--learning_rate", "3e-3", "--num_train_epochs", "1"]
    run = trained(tmp_path, "--model_name_or_path", str(base), *words)
    assert export(run, tmp_path / "out", type="f16").startswith("Proved: llama.cpp answers 20 of 20")


@pytest.mark.skipif(not REAL.exists(), reason="make fetch-real")
def test_a_real_model_answers_there_as_here(tmp_path: Path) -> None:
    rows.main(tmp_path / "rows")
    told = yaml.safe_load((ROOT / "demo_real" / "sft.yaml").read_text())
    told |= {"model_name_or_path": str(REAL), "compare_max_new_tokens": 24}
    told["data"] = {name: str(tmp_path / "rows" / f"{name}.jsonl") for name in ("train", "validation", "test")}
    (tmp_path / "sft.yaml").write_text(yaml.safe_dump(told))
    # So little tuned, it has ties that the rounding of f16 decides.
    run = trained(tmp_path, "--max_steps", "2", config=str(tmp_path / "sft.yaml"))
    assert export(run, tmp_path / "out", type="f32").startswith("Proved: llama.cpp answers 20 of 20")
