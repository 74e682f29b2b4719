import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from heed.errors import UserError
from heed.runs import checkpoints
from heed.runs.checkpoints import MANIFEST_FILE, newest_whole, rotate, verify
from world.training import trainer_of

FILES = [
    "model.safetensors",
    "optimizer.pt",
    "scheduler.pt",
    "rng_state.pth",
    "trainer_state.json",
    "config.json",
    "generation_config.json",
    "unlogged_0_of_1.json",
    MANIFEST_FILE,
]
DAMAGES = ["deleted", "cut", "emptied", "first bit", "last bit"]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with the checkpoints of steps 1 and 2."""
    folder = tmp_path_factory.mktemp("run")
    trainer_of(folder, max_steps=2).train()
    return folder


def damage(path: Path, how: str) -> None:
    data = bytearray(path.read_bytes())
    if how == "deleted":
        path.unlink()
        return
    if how.endswith("bit"):
        data[0 if how == "first bit" else -1] ^= 1
    path.write_bytes(data[: len(data) // 2] if how == "cut" else b"" if how == "emptied" else data)


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("how", DAMAGES)
def test_damage_is_noticed_and_the_checkpoint_before_is_taken(two: Path, tmp_path: Path, file: str, how: str) -> None:
    run, said = tmp_path / "run", list[str]()
    shutil.copytree(two, run)
    damage(run / "checkpoint-2" / file, how)
    found = newest_whole(run, said.append)
    assert found is not None and found.path == run / "checkpoint-1"
    [aside] = run.glob("broken-checkpoint-2-*")  # renamed, not deleted
    [sentence] = said
    assert sentence.startswith(f"resume    checkpoint-2 is not usable, now {aside.name}: ")
    assert file in sentence


def test_a_run_folder_of_another_run_is_only_read(two: Path, tmp_path: Path) -> None:
    """It may still be training: what it is writing, and what it would put aside, is its own."""
    run, said = tmp_path / "run", list[str]()
    shutil.copytree(two, run)
    (run / checkpoints.STAGING).mkdir()
    damage(run / "checkpoint-2" / "model.safetensors", "cut")
    before = sorted(run.rglob("*"))
    found = newest_whole(run, said.append, own=False)
    assert found is not None and found.path == run / "checkpoint-1"
    assert sorted(run.rglob("*")) == before
    assert said[0].startswith("resume    checkpoint-2 is not usable: ")


def test_a_whole_checkpoint_verifies_and_describes_itself(two: Path) -> None:
    found = verify(two / "checkpoint-2")
    assert found.step == 2 and found.facts["processes"] == 1 and found.facts["resumable"] is True
    assert not (two / checkpoints.STAGING).exists()
    listed = json.loads((two / "checkpoint-2" / MANIFEST_FILE).read_text())["files"]
    assert set(FILES[:-1]) <= set(listed)


def test_no_bit_of_a_manifest_changes_unnoticed(two: Path, tmp_path: Path) -> None:
    shutil.copytree(two / "checkpoint-2", tmp_path / "checkpoint-2")
    path = tmp_path / "checkpoint-2" / MANIFEST_FILE
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        with pytest.raises(UserError, match=MANIFEST_FILE):
            verify(tmp_path / "checkpoint-2")


def test_a_checkpoint_without_a_manifest_is_not_trusted(two: Path, tmp_path: Path) -> None:
    shutil.copytree(two / "checkpoint-2", tmp_path / "checkpoint-2")
    (tmp_path / "checkpoint-2" / MANIFEST_FILE).unlink()
    with pytest.raises(UserError, match=r"has no MANIFEST.json, so nobody knows whether it is whole"):
        verify(tmp_path / "checkpoint-2")


@pytest.mark.parametrize(
    ("keep", "best", "left"),
    [
        (2, None, [8, 10]),
        (2, 4, [4, 10]),
        (1, 4, [4, 10]),
        (1, None, [10]),
        (None, None, [2, 4, 6, 8, 10]),
        (3, 10, [6, 8, 10]),
    ],
)
def test_rotation_keeps_the_newest_and_the_best(
    tmp_path: Path, keep: int | None, best: int | None, left: list[int]
) -> None:
    for step in (2, 4, 6, 8, 10):
        (tmp_path / f"checkpoint-{step}").mkdir()
    rotate(tmp_path, keep=keep, best=best)
    assert [checkpoints.step_of(path) for path in checkpoints.checkpoints(tmp_path)] == left


def test_a_save_that_fails_leaves_earlier_checkpoints_whole_and_nothing_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = trainer_of(tmp_path, max_steps=3)
    save = torch.save

    def full(value: object, path: object, *rest: object, **more: object) -> None:
        if trainer.state.global_step == 2 and str(path).endswith("optimizer.pt"):
            raise RuntimeError("unexpected pos 64 vs 0")  # what torch says when the disk is full
        save(value, path, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(
        UserError, match=r"checkpoint-2 could not be written .* MiB were free\): RuntimeError: unexpected pos"
    ) as error:
        trainer.train()
    assert "checkpoint-1 is whole. Free what is short, and the same command continues from there" in str(error.value)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["checkpoint-1"]
    verify(tmp_path / "checkpoint-1")


def test_a_damaged_best_checkpoint_is_not_loaded_at_the_end(tmp_path: Path) -> None:
    said: list[str] = []
    scored: dict[str, Any] = {
        "eval_strategy": "steps",
        "eval_steps": 1,
        "load_best_model_at_end": True,
        "learning_rate": 0.5,
    }
    trainer = trainer_of(tmp_path, max_steps=3, metric_for_best_model="eval_loss", greater_is_better=False, **scored)
    trainer.say = said.append
    check = trainer._load_best_model

    def damaged() -> None:
        damage(Path(str(trainer.state.best_model_checkpoint)) / "model.safetensors", "last bit")
        check()

    trainer._load_best_model = damaged  # type: ignore[method-assign]
    trainer.train()
    assert said[0].startswith("WARNING: the best model cannot be loaded, so the last one is kept: ")
    assert trainer.state.best_model_checkpoint is None
