from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from heed.answers import generation
from heed.answers.decoding import Batch
from heed.answers.generation import ENGINES, Engine, generate, row_bytes
from heed.answers.partial import Response
from heed.errors import UserError
from heed.prompts.template import load_prompt
from world.small_world import MODELS, gpt2, gpt_neox, llama, qwen2

LENGTHS = [3, 17, 40, 9, 5, 28, 11, 60, 4, 2]
FAMILIES: dict[str, Callable[..., PreTrainedModel]] = {"gpt2": gpt2, "gpt_neox": gpt_neox, "llama": llama}


def prompts() -> list[list[int]]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(1, 2000, (length,), generator=generator).tolist() for length in LENGTHS]


def lively(model: PreTrainedModel) -> PreTrainedModel:
    """Random weights repeat one token; larger ones make answers differ."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)
    return model.eval()


def alone(model: Any, ids: list[int], count: int, stops: list[int]) -> list[int]:
    """What transformers itself writes after a prompt."""
    output = model.generate(
        torch.tensor([ids]), do_sample=False, max_new_tokens=count, eos_token_id=stops, pad_token_id=0
    )
    return list(output[0, len(ids) :].tolist())


def likely_stop(model: PreTrainedModel) -> int:
    """An id that some, but not all answers reach, so that rows of one batch end at different places."""
    answers = [alone(model, ids, 12, [0]) for ids in prompts()]
    reached = {token: sum(token in answer for answer in answers) for answer in answers for token in answer}
    return max(reached, key=lambda token: (reached[token] < len(answers), reached[token]))


def told(responses: list[Response]) -> list[tuple[Any, ...]]:
    return [(each.text, each.finish_reason, each.prompt_tokens, each.response_tokens) for each in responses]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_engine_writes_the_same_greedy_text(family: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """Mixed lengths, stop ids in play, and rows that reach the end of the context of 256."""
    model = lively(FAMILIES[family]())
    prompt, stops = load_prompt("question", tokenizer), [0, likely_stop(model)]
    ids = [*prompts(), [5, 9] * 125, [7] * 255]
    expected = [alone(model, each, min(12, 256 - len(each)), stops) for each in ids]
    asked: list[tuple[Engine, int | None]] = [("one", None), ("batch", 1), ("batch", 4), ("batch", 12)]
    answers = {}
    for engine, size in asked:
        seen: dict[int, Response] = {}
        answers[engine, size] = generate(
            model,
            prompt,
            ids,
            stop_token_ids=stops,
            batch_size=size,
            max_new_tokens=12,
            engine=engine,
            on_response=seen.__setitem__,
        )
        assert [seen[index] for index in range(len(ids))] == answers[engine, size]
    one = answers["one", None]
    assert [each.response_tokens for each in one] == list(map(len, expected))
    assert [each.text for each in one] == [
        tokenizer.decode(each[:-1] if each[-1] in stops else each, skip_special_tokens=True) for each in expected
    ]
    assert [each.prompt_tokens for each in one] == [*LENGTHS, 250, 255]
    assert {each.finish_reason for each in one} == {"stop", "length"} and one[-1].response_tokens == 1
    for given in answers.values():
        assert told(given) == told(one)
        assert all(each.seconds > 0 for each in given)


def test_rows_that_forget_are_batched_too(tokenizer: PreTrainedTokenizerBase) -> None:
    """A sliding window keeps less than the row; such rows leave a batch, and others wait until it is empty."""
    model = lively(qwen2(use_sliding_window=True, sliding_window=8, max_window_layers=1))
    prompt = load_prompt("question", tokenizer)
    answers = {}
    for engine in ENGINES:
        given = generate(
            model, prompt, prompts(), stop_token_ids=[0], batch_size=None, max_new_tokens=20, engine=engine
        )
        answers[engine] = told(given)
    assert answers["one"] == answers["batch"]
    batch = Batch(model, prompts(), limits=[5] * 10, stop_token_ids=[0], pad_token_id=0)
    with torch.no_grad():
        batch.advance([0, 1])
    assert batch.room(8) == 0


@pytest.mark.parametrize("family", MODELS)
def test_a_beginning_of_all_prompts_is_read_once_and_changes_no_logit(family: str) -> None:
    """In float64, against the whole row at once; rows of other lengths join, and rows leave."""
    model = MODELS[family]().double().eval()
    ids = [[7] * 20 + each for each in prompts()]
    batch = Batch(model, ids, limits=[4, 9] * 5, stop_token_ids=[0], pad_token_id=0)
    seen: list[tuple[tuple[int, ...], torch.Tensor]] = []
    watch = model.register_forward_hook(
        lambda _, __, given, output: seen.append((given["input_ids"].shape, output.logits[:, -1])), with_kwargs=True
    )
    logits: dict[int, list[torch.Tensor]] = {row: [] for row in range(10)}
    answers: dict[int, list[int]] = {}
    with torch.no_grad():
        for joining in ([0, 1, 2, 3, 4, 5], [], [], [], [6, 7, 8, 9], *[[]] * 8):
            batch.advance(joining)
            for row, logit in zip(joining or batch.rows, seen[-1][1], strict=True):
                logits[row].append(logit)
            answers |= {each.row: each.ids for each in batch.finished()}
        watch.remove()
        assert [len(answers[row]) for row in range(10)] == [4, 9] * 5
        for row, written in answers.items():
            whole = model(torch.tensor([ids[row] + written])).logits[0]
            torch.testing.assert_close(torch.stack(logits[row]), whole[-len(written) - 1 : -1], rtol=0, atol=1e-12)
    shapes = [shape for shape, _ in seen]
    assert shapes[:2] == [(1, 20), (6, 40)]  # the common 20, then the longest own part
    assert shapes.count((1, 20)) == 1 and (4, 60) in shapes


def test_rows_join_when_an_eighth_of_the_batch_is_free(tokenizer: PreTrainedTokenizerBase) -> None:
    model = MODELS["gpt2"]().eval()
    batch = Batch(model, [[5] * 3] * 20, limits=[1] * 2 + [9] * 18, stop_token_ids=[0], pad_token_id=0)
    with torch.no_grad():
        assert batch.room(16) == 16
        batch.advance(range(16))
    assert batch.room(16) == 0
    assert [each.row for each in batch.finished()] == [0, 1]
    assert batch.room(16) == 2 and len(batch.rows) == 14 == batch.cache.layers[0].rows


@pytest.mark.parametrize("engine", ENGINES)
def test_settings_of_the_model_change_no_greedy_answer(engine: Engine, tokenizer: PreTrainedTokenizerBase) -> None:
    model, prompt = lively(gpt2()), load_prompt("question", tokenizer)
    said: list[str] = []

    def texts() -> list[str]:
        responses = generate(
            model,
            prompt,
            prompts()[:3],
            stop_token_ids=[0],
            batch_size=None,
            max_new_tokens=20,
            engine=engine,
            say=said.append,
        )
        return [response.text for response in responses]

    expected = texts()
    assert not any("generation_config" in text for text in said)
    own = GenerationConfig(do_sample=True, temperature=3.0, repetition_penalty=5.0, eos_token_id=7)
    model.generation_config = own
    assert texts() == expected and model.generation_config is own
    asks = "do_sample: True, repetition_penalty: 5.0, temperature: 3.0"
    assert f"the model's generation_config asks for {asks}; that is ignored, and answers are greedy" in said


def test_an_adapter_answers_through_every_engine(tokenizer: PreTrainedTokenizerBase) -> None:
    from heed.models.adapters import Adapter, add_adapter

    torch.manual_seed(1)
    model = add_adapter(gpt2(), Adapter(rank=2, alpha=64, dropout=0.0, target_modules=None))
    plain = lively(gpt2())
    model = lively(model)
    prompt = load_prompt("question", tokenizer)
    options: dict[str, Any] = {"stop_token_ids": [0], "batch_size": None, "max_new_tokens": 12}
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    answers = [told(generate(model, prompt, prompts(), engine=engine, **options)) for engine in ENGINES]
    assert answers[0] == answers[1] != told(generate(plain, prompt, prompts(), **options))


def test_a_prompt_that_fills_the_context_is_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    model, prompt = MODELS["gpt2"]().eval(), load_prompt("question", tokenizer)
    with pytest.raises(UserError, match="a prompt of 256 tokens leaves no room in the model's 256 positions"):
        generate(model, prompt, [[5] * 256], stop_token_ids=[0], batch_size=2, max_new_tokens=20)
    with pytest.raises(UserError, match="batch_size: 2, but engine: one answers one by one"):
        generate(model, prompt, [[5]], stop_token_ids=[0], batch_size=2, max_new_tokens=20, engine="one")


def texts(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, **options: Any) -> list[str]:
    prompt = load_prompt("question", tokenizer)
    responses = generate(model, prompt, prompts(), stop_token_ids=[0], max_new_tokens=12, **options)
    return [response.text for response in responses]


def test_running_out_of_memory_changes_no_answer(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    lively(model)
    expected = texts(model, tokenizer, batch_size=4, engine="batch")
    forward, sizes = Batch._forward, []

    def small(batch: Batch, input_ids: list[list[int]], *rest: Any) -> list[int]:
        sizes.append(len(input_ids))
        if len(input_ids) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return forward(batch, input_ids, *rest)

    monkeypatch.setattr(Batch, "_forward", small)
    said: list[str] = []
    done: list[int] = []
    on_response = lambda index, response: done.append(index)  # noqa: E731
    assert texts(model, tokenizer, batch_size=8, engine="batch", say=said.append, on_response=on_response) == expected
    assert sizes[:3] == [8, 4, 2] and sorted(done) == list(range(10))
    assert said == [
        "not enough memory for 8 rows at once; continuing with 4 (batch_size: 4 starts there)",
        "not enough memory for 4 rows at once; continuing with 2 (batch_size: 2 starts there)",
    ]


def test_a_batch_is_sized_to_memory(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In float32: keys and values of two layers of 32 for 60 + 12 tokens, activations for 60, 2,000 scores.
    assert row_bytes(model, 60, 12) == 4 * (2 * 2 * 32 * 72 + 24 * 32 * 60 + 4 * 2000)
    monkeypatch.setattr(generation, "free_memory", lambda device: 7 * 2 * row_bytes(model, 60, 12) + 9)
    said: list[str] = []
    assert texts(model, tokenizer, batch_size=None, say=said.append) == texts(model, tokenizer, batch_size=2)
    assert said == [
        "engine batch: measured fastest on CPUs (docs/performance.md)",
        "7 rows at once (one takes up to 0.2 MiB, 3 MiB are free)",
    ]
