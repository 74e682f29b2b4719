import json
import os
from pathlib import Path

import pytest

from heed.models import identity
from heed.models.identity import model_sha256, read_ahead, weights_sha256
from world.small_world import gpt2, save_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_model(tmp_path / "model", gpt2())


def test_a_model_trained_again_in_its_folder_is_another_one_and_a_copy_is_the_same(
    folder: Path, tmp_path: Path
) -> None:
    before = model_sha256(str(folder))
    (folder / "run.json").write_text("{}")  # said about it, not part of it
    assert model_sha256(str(folder)) == before == model_sha256(str(save_model(tmp_path / "copy", gpt2())))
    weights = folder / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert model_sha256(str(folder)) != before


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "chat_template.jinja"])
def test_what_decides_its_answers_belongs_to_a_model(folder: Path, name: str) -> None:
    before = model_sha256(str(folder))
    with (folder / name).open("a") as file:
        file.write(" ")
    assert model_sha256(str(folder)) != before


def test_the_base_belongs_to_its_adapter(folder: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(folder)}))
    before = model_sha256(str(adapter))
    (folder / "config.json").write_text("{}")
    assert model_sha256(str(adapter)) != before


def test_weights_are_read_once_until_they_are_written_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    real = identity.file_sha256

    def counted(path: Path) -> str:
        read.append(path.name)
        return real(path)

    monkeypatch.setattr(identity, "file_sha256", counted)
    once = [model_sha256(str(folder)) for _ in range(3)]
    assert read.count("model.safetensors") == 1 and len(set(once)) == 1
    stat = (folder / "model.safetensors").stat()
    os.utime(folder / "model.safetensors", ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert model_sha256(str(folder)) == once[0] and read.count("model.safetensors") == 2
    (folder / "more.safetensors").write_bytes(b"")
    read_ahead(str(folder))
    assert len({weights_sha256(str(folder)) for _ in range(3)}) == 1 and read.count("more.safetensors") == 1


def test_a_model_of_the_hub_is_known_by_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers.utils.hub

    commits = {"main": "a" * 40, "v2": "b" * 40}

    def cached_file(model: str, name: str, *, revision: str | None, **options: object) -> str | None:
        return f"/cache/snapshots/{commits[revision or 'main']}/{name}" if name == "config.json" else None

    monkeypatch.setattr(transformers.utils.hub, "cached_file", cached_file)
    assert model_sha256("me/model") == model_sha256("me/model", "main") != model_sha256("me/model", "v2")
