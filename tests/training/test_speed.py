import contextlib
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainingArguments

from heed.config import Setting, Settings
from heed.models import faster
from heed.tokens.batches import FlatCollator
from heed.training import speed
from heed.training.speed import choose_precision, choose_speed, graph_refusal
from heed.training.trainer import HeedTrainer
from world.small_world import MODELS, gpt2, gpt_neox
from world.training import arguments, examples, losses, train

CPU = torch.device("cpu")
SHARED = FlatCollator(pad_token_id=0, loss_on="response", share_prefix=True)


def settings(**values: Any) -> Settings:
    return {name: Setting(value=value, source="run.yaml:3", set_by_user=True) for name, value in values.items()}


@pytest.mark.parametrize(
    ("asked", "weights", "avx512_bf16", "launcher", "said", "bf16"),
    [
        ({}, "float32", True, None, "bf16 (the CPU has AVX512_BF16; bf16: false for float32)", True),
        ({}, "float32", False, None, "float32 (the CPU has no AVX512_BF16)", None),
        ({"bf16": False}, "float32", True, None, "float32 (run.yaml:3)", False),
        ({"bf16": True}, "float32", False, None, "bf16 (run.yaml:3)", True),
        ({"fp16": True}, "float32", True, None, "fp16 (run.yaml:3)", None),
        ({}, "bfloat16", True, None, "bfloat16, the type of the weights", None),
        ({}, "float32", False, "bf16", "bf16 (the launcher says so)", True),
    ],
)
def test_precision_is_chosen_with_a_reason(
    monkeypatch: pytest.MonkeyPatch,
    asked: dict[str, Any],
    weights: str,
    avx512_bf16: bool,
    launcher: str | None,
    said: str,
    bf16: bool | None,
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    if launcher:
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", launcher)
    training = settings(use_cpu=True, **asked)
    assert choose_precision(training, weights=weights) == f"computing in {said}"
    assert (training["bf16"].value if "bf16" in training else None) == bf16


@pytest.mark.parametrize(
    ("capability", "asked", "said", "bf16", "tf32"),
    [
        ((9, 0), {}, "bf16 (Some GPU has bfloat16; bf16: false for float32)", True, None),
        ((9, 0), {"bf16": False}, "float32, products in TF32 (run.yaml:3)", False, True),
        ((9, 0), {"bf16": False, "tf32": False}, "float32, products in float32 (run.yaml:3)", False, False),
        ((7, 5), {}, "float32 (the GPU has no bfloat16)", None, None),
    ],
)
def test_precision_on_a_gpu(
    monkeypatch: pytest.MonkeyPatch,
    capability: tuple[int, int],
    asked: dict[str, Any],
    said: str,
    bf16: bool | None,
    tf32: bool | None,
) -> None:
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    for module, name, value in (
        (torch.accelerator, "is_available", True),
        (torch.cuda, "is_available", True),
        (torch.cuda, "get_device_name", "Some GPU"),
        (torch.cuda, "get_device_capability", capability),
    ):
        monkeypatch.setattr(module, name, lambda value=value: value)
    training = settings(**asked)
    assert choose_precision(training, weights="float32") == f"computing in {said}"
    for name, wanted in (("bf16", bf16), ("tf32", tf32)):
        assert (training[name].value if name in training else None) == wanted


def test_graphs_are_refused_with_every_reason(tmp_path: Path) -> None:
    cpu = TrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    options: dict[str, Any] = {
        "flat": True,
        "varlen": "",
        "dropout": "",
        "bits": None,
        "row_losses": False,
        "tokens": 500,
    }
    assert graph_refusal(cpu, **options) == "it needs CUDA, this is a cpu"

    class OnCuda:
        device = torch.device("cuda")
        world_size, fp16, gradient_checkpointing, deepspeed, fsdp = 1, False, False, None, None

    cuda: Any = OnCuda()
    assert graph_refusal(cuda, **options) == ""
    cuda.fp16 = True
    found = graph_refusal(cuda, **(options | {"flat": False, "dropout": "attn_pdrop is 0.1"}))
    assert found == "batching: padded, attn_pdrop is 0.1, fp16's loss scaling"
    cuda.fp16 = False
    found = graph_refusal(cuda, **(options | {"tokens": 16384}))
    assert found == "rows of 16,384 tokens, whose kernels take longer than launching them"


def test_speed_is_chosen_with_a_reason() -> None:
    for refusal in ("", "it needs CUDA, this is a cpu"):
        assert choose_speed("auto", graph_refusal=refusal).mode == "eager"
        assert choose_speed("compile", graph_refusal=refusal).mode == "compile"
    assert choose_speed("graph", graph_refusal="").mode == "graph"
    chosen = choose_speed("graph", graph_refusal="fp16's loss scaling")
    assert (chosen.mode, chosen.reason) == ("eager", "WARNING: speed: graph does not work here: fp16's loss scaling")


def test_the_model_is_as_it_was_after_training(tmp_path: Path) -> None:
    model = gpt2()
    before = [type(module) for module in model.modules()]
    train(tmp_path, model, examples(16), SHARED, max_steps=2)
    assert [type(module) for module in model.modules()] == before
    assert model.config._attn_implementation == "sdpa"
    assert not any("forward" in vars(module) for module in model.modules() if module is not model)


def test_fused_gelu_changes_nothing() -> None:
    ids = torch.tensor([[5, 6, 5, 7, 8, 5]])

    def gradient(change: Any) -> torch.Tensor:
        model = gpt2().double()
        with change(model):
            model(input_ids=ids, labels=ids).loss.backward()
        return torch.cat([parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None])

    fast, plain = gradient(faster.fused_gelu), gradient(contextlib.nullcontext)
    assert (fast - plain).norm() / plain.norm() < 1e-12


def test_only_gelu_new_and_a_tied_embedding_are_touched() -> None:
    for model, touched in ((gpt2(), True), (gpt_neox(), False)):  # Pythia's head is a matrix of its own
        with faster.fused_gelu(model), faster.tied_gradient_in_place(model):
            assert ("forward" in vars(model.get_input_embeddings())) is touched
            assert any(getattr(module, "approximate", "") == "tanh" for module in model.modules()) is touched


def test_a_padding_embedding_learns_nothing_from_being_read() -> None:
    """As torch's own `padding_idx` has it: only the head's gradient reaches its row."""
    tables = []
    for change in (faster.tied_gradient_in_place, contextlib.nullcontext):
        model: Any = gpt2().double()
        model.get_input_embeddings().padding_idx = 5
        with change(model):
            model(input_ids=torch.tensor([[5, 6, 5, 7]]), labels=torch.tensor([[5, 6, 5, 7]])).loss.backward()
        tables.append(model.get_input_embeddings().weight.grad)
    fast, plain = tables
    assert torch.allclose(fast, plain, rtol=0, atol=1e-12)


@pytest.mark.slow  # a C++ compiler is needed, and half a minute
@pytest.mark.parametrize("name", MODELS)
def test_compiled_blocks_give_the_losses_of_eager_ones(tmp_path: Path, name: str) -> None:
    data = examples(64)
    eager = losses(train(tmp_path, MODELS[name](), data, SHARED, max_steps=10))
    trainer = HeedTrainer(
        model=MODELS[name](),
        args=arguments(tmp_path, max_steps=10),
        train_dataset=data,
        eval_dataset=data,
        data_collator=SHARED,
        speed=speed.SpeedChoice("compile", "test"),
    )
    trainer.train()
    assert losses(trainer) == pytest.approx(eager, abs=1e-5)
    assert all(block._compiled_call_impl is None for block in faster.blocks(trainer.model))
