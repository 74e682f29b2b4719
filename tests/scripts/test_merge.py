import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from heed import merge
from heed.errors import UserError
from heed.models import adapters, loading
from heed.prompts.template import load_prompt
from world.small_world import gpt2, tiny_tokenizer


@pytest.fixture
def adapter(model_folder: Path, tmp_path: Path) -> Path:
    """As a run leaves it, with an adapter that does something."""
    chosen = adapters.Adapter(rank=4, alpha=8, dropout=0.0, target_modules=None)
    model = adapters.add_adapter(loading.load_model(str(model_folder)), chosen)
    torch.manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1)
    folder = tmp_path / "adapter"
    model.save_pretrained(folder)
    tokenizer = tiny_tokenizer()
    tokenizer.save_pretrained(folder)
    load_prompt("chatml", tokenizer).contract().save(folder)
    return folder


def test_a_merged_adapter_is_one_model_with_the_same_logits(adapter: Path, tmp_path: Path) -> None:
    difference = merge.merge(str(adapter), tmp_path / "merged")

    files = {path.name for path in (tmp_path / "merged").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "prompt_contract.json"} <= files
    assert "adapter_config.json" not in files
    assert 0 <= difference < 1e-5
    base, tuned = loading.load_model(str(tmp_path / "random-gpt2")), loading.load_finished(str(adapter))
    merged = loading.load_finished(str(tmp_path / "merged"))
    batch = merge.any_batch(tuned)
    assert loading.max_logit_difference(tuned, merged, batch) == difference
    assert loading.max_logit_difference(base, merged, batch) > 0.1  # the adapter did something
    assert not (tmp_path / "merged.part").exists()


def test_a_model_that_is_not_the_adapters_is_not_left_behind(
    adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = merge.write

    def write_another(model: Any, name: str, folder: Path) -> None:
        write(model, name, folder)
        gpt2().save_pretrained(folder)

    monkeypatch.setattr(merge, "write", write_another)
    with pytest.raises(RuntimeError, match="the merged model's logits differ by"):
        merge.merge(str(adapter), tmp_path / "merged")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "random-gpt2"]


def test_what_cannot_be_merged_is_refused(adapter: Path, model_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"random-gpt2 is not an adapter: it has no adapter_config\.json"):
        merge.merge(str(model_folder), tmp_path / "merged")
    with pytest.raises(UserError, match="random-gpt2 is not empty, so it will not be touched"):
        merge.merge(str(adapter), model_folder)
    shutil.rmtree(model_folder)
    with pytest.raises(UserError, match="could not be loaded"):
        merge.merge(str(adapter), tmp_path / "merged")
