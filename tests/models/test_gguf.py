"""Models that come as one file: GGUF is read, and everything else is named for what it is."""

import zipfile
from pathlib import Path

import pytest
import torch

from heed.answers.subjects import find_prompt
from heed.errors import UserError
from heed.models import gguf, loading
from world.small_world import gpt2, save_model


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_a_gguf_file_is_dequantized_once_and_that_is_reported(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What transformers' reader makes of a file is its own affair; here it makes a random GPT-2 of any file."""
    made = []

    def dequantize(path: Path, folder: Path) -> None:
        made.append(path)
        save_model(folder, gpt2())

    monkeypatch.setattr(gguf, "dequantize", dequantize)
    monkeypatch.setattr(gguf, "find_spec", lambda name: True)
    file = tmp_path / "tiny.gguf"
    file.write_bytes(b"GGUF and so on")
    model, tokenizer = loading.load_finished(str(file)), loading.load_tokenizer(str(file))
    gguf.folder_of.cache_clear()  # as in another process
    assert torch.equal(loading.load_model(str(file)).lm_head.weight, model.lm_head.weight)
    assert made == [file]
    told = capsys.readouterr().out
    assert told.count("tiny.gguf is GGUF: dequantizing it to float32 once, into") == 1 and str(home) in told
    assert model.name_or_path == str(file)  # an adapter names its base by it
    assert len(tokenizer) == 2000
    prompt, _ = find_prompt(str(file), None, "alpaca")
    assert prompt.name == "alpaca"


def test_a_missing_package_is_named_with_the_way_to_get_it(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gguf, "find_spec", lambda name: None)
    (tmp_path / "tiny.gguf").write_bytes(b"GGUF")
    with pytest.raises(UserError, match=r"needs the gguf package; install it with `make setup-gguf`"):
        loading.load_tokenizer(str(tmp_path / "tiny.gguf"))


def test_a_damaged_gguf_ends_in_a_sentence(tmp_path: Path, home: Path) -> None:
    pytest.importorskip("gguf", reason="make setup-gguf")
    (tmp_path / "tiny.gguf").write_bytes(b"GGUF and nothing more")
    with pytest.raises(UserError, match="could not be read as a causal language model"):
        loading.load_model(str(tmp_path / "tiny.gguf"))


def test_files_that_are_not_models_are_named_for_what_they_are(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "some.whl", "w") as archive:
        archive.writestr("a", "b")
    contents = {
        "model.safetensors": (
            b"\x08\x00\x00\x00\x00\x00\x00\x00{}",
            "is a file of weights; name its folder",
        ),
        "pointer.gguf": (gguf.POINTER + b"/spec/v1\noid sha256:0\n", "`git lfs pull` fetches it"),
        "old.bin": (b"\x80\x02}q\x00.", "is a pickle, which Heed does not load"),
        "config.json": (b"{}", "is a JSON file; a model is the folder around it"),
        "page.gguf": (b"<!doctype html>", "is a page or another document"),
        "notes.txt": (b"hello", "is a file, and not GGUF"),
    }
    for name, (content, _) in contents.items():
        (tmp_path / name).write_bytes(content)
    for name, message in [*((name, message) for name, (_, message) in contents.items()), ("some.whl", "a zip archive")]:
        with pytest.raises(UserError, match=message):
            loading.load_tokenizer(str(tmp_path / name))
    with pytest.raises(UserError, match=r"there is no file .*missing\.gguf"):
        loading.load_model(str(tmp_path / "missing.gguf"))


def test_folders_without_their_weights_say_so(tmp_path: Path) -> None:
    cloned = save_model(tmp_path / "cloned", gpt2())
    (cloned / "model.safetensors").write_bytes(gguf.POINTER + b"/spec/v1\n")
    with pytest.raises(UserError, match=r"model.safetensors is a pointer that Git LFS left"):
        loading.load_model(str(cloned))
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a.gguf").write_bytes(b"GGUF")
    with pytest.raises(UserError, match=r"has no config.json; name one of its GGUF files: .*a.gguf"):
        loading.load_tokenizer(str(tmp_path / "files"))


def test_damaged_weights_end_in_a_sentence(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "damaged", gpt2())
    (folder / "model.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(UserError, match="could not be loaded"):
        loading.load_model(str(folder))
