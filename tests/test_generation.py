from collections.abc import Sequence
from typing import Any

import pytest
import torch
from small_world import MODELS
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from heed import generation
from heed.errors import UserError
from heed.generation import cut_at_stop, generate, generate_batch, row_bytes, together_and_alone
from heed.prompts import Prompt, load_prompt

LENGTHS = [3, 17, 40, 9, 5, 28, 11, 60, 4, 2]


def prompts() -> list[list[int]]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(1, 2000, (length,), generator=generator).tolist() for length in LENGTHS]


def likely_stop(model: PreTrainedModel) -> int:
    """An id that some, but not all answers reach, so that rows of one batch end at different places."""
    answers = [
        generate_batch(model, [ids], pad_token_id=0, stop_token_ids=[0], max_new_tokens=12)[0] for ids in prompts()
    ]
    reached = {token: sum(token in answer for answer in answers) for answer in answers for token in answer}
    return max(reached, key=lambda token: (reached[token] < len(answers), reached[token]))


def test_a_batch_answers_as_one_by_one(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    model.eval()
    with torch.no_grad():  # random weights repeat one token; larger ones make answers differ
        for parameter in model.parameters():
            parameter.mul_(4)
    prompt, stops = load_prompt("question", tokenizer), [0, likely_stop(model)]
    answers = {}
    for size in (1, 4, 10):
        responses = generate(model, prompt, prompts(), stop_token_ids=stops, batch_size=size, max_new_tokens=12)
        answers[size] = [
            (each.text, each.finish_reason, each.response_tokens, each.prompt_tokens) for each in responses
        ]
    assert answers[1] == answers[4] == answers[10]
    assert [each[3] for each in answers[1]] == LENGTHS
    assert {each[1] for each in answers[1]} == {"stop", "length"}


def test_a_row_at_the_end_of_the_context_is_answered_up_to_there(tokenizer: PreTrainedTokenizerBase) -> None:
    model = MODELS["gpt2"]().eval()  # 256 positions
    prompt = load_prompt("question", tokenizer)
    ids = [[5] * 250, [5] * 10]
    long, short = generate(model, prompt, ids, stop_token_ids=[0], batch_size=2, max_new_tokens=20)
    assert (long.response_tokens, long.finish_reason) == (6, "length")
    assert short.response_tokens == 20
    with pytest.raises(UserError, match="a prompt of 256 tokens leaves no room in the model's 256 positions"):
        generate(model, prompt, [[5] * 256], stop_token_ids=[0], batch_size=2, max_new_tokens=20)


def test_prompts_of_like_length_stand_together_and_long_ones_alone() -> None:
    assert together_and_alone([30, 10, 99, 20, 15, 98], roomy=50) == [[1, 4, 3, 0], [5], [2]]


def texts(model: PreTrainedModel, prompt: Prompt, batch_size: int | None, **options: Any) -> list[str]:
    responses = generate(
        model, prompt, prompts(), stop_token_ids=[0], batch_size=batch_size, max_new_tokens=12, **options
    )
    return [response.text for response in responses]


def test_running_out_of_memory_changes_no_answer(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = load_prompt("question", tokenizer)
    expected = texts(model, prompt, 4)
    sizes: list[int] = []

    def small(model: Any, prompts_ids: Sequence[Sequence[int]], **options: Any) -> list[list[int]]:
        sizes.append(len(prompts_ids))
        if len(prompts_ids) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return generate_batch(model, prompts_ids, **options)

    monkeypatch.setattr(generation, "generate_batch", small)
    said: list[str] = []
    done: list[int] = []
    assert texts(model, prompt, 8, say=said.append, on_done=done.append) == expected
    assert sizes == [8, 4, 2, 2, 2, 2, 2] and done == [2] * 5
    assert said == [
        "memory does not suffice for 8 rows at once; going on with 4 (batch_size: 4 begins there)",
        "memory does not suffice for 4 rows at once; going on with 2 (batch_size: 2 begins there)",
    ]


def test_a_batch_is_sized_to_memory(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In float32: keys and values of two layers of 32 for 60 + 12 tokens, activations for 60, 2,000 scores.
    assert row_bytes(model, 60, 12) == 4 * (2 * 2 * 32 * 72 + 24 * 32 * 60 + 4 * 2000)
    monkeypatch.setattr(generation, "free_memory", lambda device: 7 * 2 * row_bytes(model, 60, 12) + 9)
    prompt = load_prompt("question", tokenizer)
    said: list[str] = []
    done: list[int] = []
    assert texts(model, prompt, None, say=said.append, on_done=done.append) == texts(model, prompt, 2)
    assert done == [7, 3]
    assert said == ["7 rows at once (one takes up to 0.2 MiB, 3 MiB are free)"]


def test_an_answer_ends_with_its_first_stop_id() -> None:
    assert cut_at_stop([5, 6, 9, 9, 9], [0, 9]) == [5, 6, 9]
    assert cut_at_stop([5, 6], [0, 9]) == [5, 6]
