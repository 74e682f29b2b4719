import pytest

from bench import memory_table
from bench.memory_table import Memory, adapter_only, on_each_gpu, one_device, step_memory
from heed.errors import UserError
from world.small_world import gpt2, gpt_neox

MEMORY = Memory(weights=80.0, gradients=80.0, optimizer=160.0, activations=40.0)  # 20 weights in 10 blocks


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "bf16", "recomputed"),
    [(gpt2(n_layer=6).config, True, False), (gpt_neox(num_hidden_layers=6).config, False, True)],
    ids=["gpt2", "gpt_neox"],
)
def test_the_memory_of_a_step_is_what_a_real_step_takes(config: object, bf16: bool, recomputed: bool) -> None:
    told = one_device(
        config, tokens=256, supervised=64, example_tokens=64, bf16=bf16, gradient_checkpointing=recomputed
    )
    measured = step_memory(
        config,
        layers=6,
        tokens=256,
        supervised=64,
        example_tokens=64,
        bf16=bf16,
        gradient_checkpointing=recomputed,
        fake=False,
    )

    assert told.weights == measured.weights
    assert told.tensors == pytest.approx(measured.tensors, rel=0.01)


def test_each_engine_shards_what_it_promises() -> None:
    def on(engine: memory_table.Engine, gpus: int) -> Memory:
        return on_each_gpu(MEMORY, engine, gpus, layers=10)

    assert on("single", 1) == MEMORY
    assert on("ddp", 8) == Memory(weights=80, gradients=80, optimizer=160, activations=40, gathered=80)
    assert on("zero2", 8) == Memory(weights=40, gradients=5, optimizer=30, activations=40, gathered=40)
    assert on("fsdp2", 8) == Memory(weights=10, gradients=10, optimizer=20, activations=40, gathered=16)
    assert on("zero3", 8) == on("fsdp2", 8)
    assert on("fsdp2_offload", 8) == Memory(weights=0, gradients=0, optimizer=0, activations=40, gathered=16)
    assert adapter_only(MEMORY) == Memory(weights=40, gradients=0, optimizer=0, activations=40)


def test_a_micro_batch_without_tokens_is_refused() -> None:
    with pytest.raises(UserError, match="--tokens: 0 is too few for a micro-batch"):
        memory_table.main(["--tokens", "0"])
