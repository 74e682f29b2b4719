from typing import Any

import pytest
import torch

from heed.models import products
from world.small_world import MODELS


@pytest.fixture(autouse=True)
def small_weights_too_on_an_amd_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "SMALLEST", 1)
    monkeypatch.setattr(products, "cpu_name", lambda: "AMD EPYC 9R14")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")


def gradients(model: Any, ids: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    model(ids, labels=ids).loss.backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters()}


@pytest.mark.parametrize("family", MODELS)
def test_onednn_computes_what_torch_does(family: str) -> None:
    model, ids = MODELS[family]().eval(), torch.tensor([[5, 6, 7], [8, 9, 10]])
    head = model.get_output_embeddings()
    with torch.no_grad():
        plain = model(ids).logits
    learned = gradients(model, ids)
    with products.onednn_products(model):
        with torch.no_grad():
            torch.testing.assert_close(model(ids).logits, plain, rtol=0, atol=1e-6)
        for name, found in gradients(model, ids).items():
            torch.testing.assert_close(found, learned[name], rtol=1e-5, atol=1e-6)
            assert found.stride() == learned[name].stride()  # the optimizer walks over both at once
        assert "forward" in vars(head)
    assert not any("forward" in vars(module) for module in model.modules())
    with torch.no_grad():
        assert torch.equal(model(ids).logits, plain)


def test_it_is_for_float32_on_amd_where_torch_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    model = MODELS["gpt2"]()

    def changed() -> int:
        with products.onednn_products(model):
            return sum("forward" in vars(module) for module in model.modules())

    assert changed() > 1
    with monkeypatch.context() as older:
        older.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
        assert changed() == 1  # the head
    model.bfloat16()  # which torch gives to oneDNN by itself
    assert changed() == 0
    model.float()
    monkeypatch.setattr(products, "onednn_works", lambda: False)
    assert changed() == 0
    monkeypatch.undo()
    monkeypatch.setattr(products, "cpu_name", lambda: "Intel(R) Xeon(R) Platinum 8488C")
    assert changed() == 0


def test_a_frozen_layer_has_no_gradient_and_autocast_computes_as_ever() -> None:
    model: Any = MODELS["gpt2"]()
    ids, layer = torch.tensor([[5, 6, 7, 8]]), model.transformer.h[0].mlp.c_fc
    layer.weight.requires_grad_(False)
    with torch.autocast("cpu", torch.bfloat16):
        plain = model(ids).logits
    with products.onednn_products(model):
        model(ids, labels=ids).loss.backward()
        assert layer.weight.grad is None and layer.bias.grad is not None
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(model(ids).logits, plain)


def test_what_torch_no_longer_has_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: Any) -> torch.Tensor:
        raise AttributeError("'_OpNamespace' 'mkldnn' object has no attribute '_linear_pointwise'")

    monkeypatch.setattr(products, "multiplied", missing)
    assert not products.onednn_works.__wrapped__()
