"""P(EOS) at the reference's end and EOS before it: equal to a loop over single rows, in float64."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import PreTrainedModel, TrainingArguments

from heed.evaluation.stops import stop_numbers
from heed.tokens.batches import FlatCollator, LossOn, PaddingCollator
from heed.training.trainer import HeedTrainer
from world.small_world import MODELS, example

EOS = 0
SHARED = [7, 8, 9]
# The third and the last were cut: they do not end in EOS. The fourth has nothing but its end, the fifth no prompt.
PROMPTS = [[*SHARED, 11], [*SHARED, 12, 13], SHARED, [*SHARED, 14], [], [*SHARED, 11]]
RESPONSES = [[21, 22, EOS], [23, 24, 25, 26, EOS], [27, 28], [EOS], [*SHARED, 29, EOS], [21, 22, 23]]
ROWS: list[dict[str, Any]] = [example(prompt, response) for prompt, response in zip(PROMPTS, RESPONSES, strict=True)]


def eager_to_stop(name: str) -> PreTrainedModel:
    """A random model in float64 whose EOS is likelier than all other tokens at some places, and not at others."""
    model = MODELS[name]().double()
    head: Any = model.get_output_embeddings()
    head.bias = torch.nn.Parameter(torch.zeros(2000, dtype=torch.float64))
    head.bias.data[EOS] = {"gpt2": 0.445, "gpt_neox": 0.23}[name]
    return model.eval()


@torch.no_grad()
def row_by_row(model: PreTrainedModel) -> list[tuple[float | None, float | None]]:
    """What a textbook writes: one row at a time, all logits, softmax, argmax."""
    found: list[tuple[float | None, float | None]] = []
    for row in ROWS:
        ids, [[start, _]] = row["input_ids"], row["spans"]
        if ids[-1] != EOS:
            found.append((None, None))
            continue
        logits = model(input_ids=torch.tensor([ids])).logits[0]
        first = max(1, start)
        greedy = logits[first - 1 : -2].argmax(dim=-1).tolist()
        found.append((logits[-2].softmax(dim=-1)[EOS].item(), float(EOS in greedy)))
    return found


@pytest.mark.parametrize("name", MODELS)
def test_stop_numbers_are_those_of_a_loop_over_rows(name: str) -> None:
    model = eager_to_stop(name)
    wanted = row_by_row(model)
    assert {early for _, early in wanted} == {0.0, 1.0, None}  # the rows show both
    for batch_size in (1, 4, 32):
        found = stop_numbers(model, ROWS, eos_token_id=EOS, batch_size=batch_size)
        assert found["p_eos"] == pytest.approx([each for each, _ in wanted], abs=1e-12)
        assert found["premature_eos"] == [each for _, each in wanted]


@torch.no_grad()
def test_the_likelihood_of_a_reference_is_the_mean_probability_of_its_tokens_before_the_end() -> None:
    model = eager_to_stop("gpt2")
    ids = ROWS[1]["input_ids"]  # five of prompt, four of response, and the end
    logs = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(dim=-1)
    wanted = sum(logs[place - 1, ids[place]].item() for place in (5, 6, 7, 8)) / 4

    likelihood = stop_numbers(model, ROWS, eos_token_id=EOS)["reference_likelihood"]
    assert likelihood[1] == pytest.approx(math.exp(wanted), abs=1e-12)
    assert likelihood[3] is None and likelihood.count(None) == 1  # an end is all that the fourth has


def test_a_row_that_the_model_has_no_positions_for_has_no_number() -> None:
    model = MODELS["gpt2"]()
    long = example([5] * 256, [6, EOS])
    long_row, row = stop_numbers(model, [long, ROWS[0]], eos_token_id=EOS)["p_eos"]
    assert long_row is None and row is not None
    assert stop_numbers(model, [long], eos_token_id=EOS)["p_eos"] == [None]


def evaluate(folder: Path, model: PreTrainedModel, rows: Sequence[Any], collator: Any, size: int) -> dict[str, float]:
    args = TrainingArguments(
        output_dir=str(folder), use_cpu=True, per_device_eval_batch_size=size, report_to="none", disable_tqdm=True
    )
    data = Dataset.from_list(list(rows))
    return HeedTrainer(model=model, args=args, eval_dataset=data, data_collator=collator).evaluate()


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("loss_on", ["response", "all"])
def test_evaluation_in_training_finds_the_same_at_any_batch_size(tmp_path: Path, name: str, loss_on: LossOn) -> None:
    model = eager_to_stop(name)
    wanted = [(probability, early) for probability, early in row_by_row(model) if probability is not None]
    p_eos, premature = (sum(each) / 4 for each in zip(*wanted, strict=True))
    for kind in (
        PaddingCollator(pad_token_id=EOS, loss_on=loss_on),
        FlatCollator(pad_token_id=EOS, loss_on=loss_on, share_prefix=True),
    ):
        for size in (1, 3, 6):
            found = evaluate(tmp_path, model, ROWS, kind, size)
            assert found["eval_p_eos"] == pytest.approx(p_eos, abs=1e-12)
            assert found["eval_premature_eos"] == premature
            assert (found["eval_rows"], found["eval_cut_rows"]) == (6, 2)


def test_rows_that_were_all_cut_have_no_stop_metrics(tmp_path: Path) -> None:
    collator = PaddingCollator(pad_token_id=EOS, loss_on="response")
    found = evaluate(tmp_path, MODELS["gpt2"](), [ROWS[2], ROWS[5]], collator, 2)
    assert found["eval_cut_rows"] == 2 and not {"eval_p_eos", "eval_premature_eos"} & set(found)


def test_a_broken_model_does_not_look_as_if_its_rows_were_cut(tmp_path: Path) -> None:
    model = MODELS["gpt2"]()
    next(model.parameters()).data.fill_(float("nan"))
    found = evaluate(tmp_path, model, ROWS, PaddingCollator(pad_token_id=EOS, loss_on="response"), 6)
    assert found["eval_loss"] != found["eval_loss"] and found["eval_p_eos"] != found["eval_p_eos"]
    assert found["eval_cut_rows"] == 2
