"""The laws on a real pretrained model, SmolLM2-135M-Instruct, in its own template (`make fetch-real`)."""

import json
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from heed.answers.generation import generate
from heed.data.records import RawRow, Record
from heed.data.rows import check_rows
from heed.models import adapters, loading
from heed.prompts.template import Prompt, load_prompt
from heed.tokens.batches import FlatCollator, PaddingCollator
from heed.tokens.encoding import Policy, encode_split
from heed.training.trainer import HeedTrainer
from world.small_world import ROOT
from world.training import Recorder, SaveAt, arguments, losses, textbook_loop, train

# A folder or a .gguf file: HEED_REAL_MODEL, or what `make fetch-real` fetches.
NAME = os.environ.get("HEED_REAL_MODEL", str(ROOT / ".cache" / "smollm2" / "SmolLM2-135M-Instruct.Q4_1.gguf"))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path(NAME).exists(), reason="make fetch-real"),
    pytest.mark.skipif(Path(NAME).is_file() and find_spec("gguf") is None, reason="make setup-gguf"),
]
LEARNING_RATE = 5e-6  # AdamW follows the rounding of tiny gradients, and this limits how far


def model() -> PreTrainedModel:
    return loading.load_model(NAME)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return loading.load_tokenizer(NAME)


@pytest.fixture(scope="module", params=["model", "chatml"])
def prompt(request: pytest.FixtureRequest, tokenizer: PreTrainedTokenizerBase) -> Prompt:
    return load_prompt(request.param, tokenizer)


def chats() -> list[Record]:
    lines = (ROOT / "data" / "chats.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [RawRow(place=f"chats.jsonl:{number + 1}", value=json.loads(line)) for number, line in enumerate(lines)]
    return check_rows(rows, source="chats", columns={}, on_bad_row="stop").records


def encoded(records: list[Record], prompt: Prompt) -> Dataset:
    return encode_split(records, prompt, Policy(max_length=512, on_long_row="error", loss_on="response")).dataset


def flat() -> FlatCollator:
    return FlatCollator(pad_token_id=2, loss_on="response", share_prefix=True)


@torch.no_grad()
def plain_nll(model: PreTrainedModel, example: Any) -> tuple[float, int]:
    """Summed over what an example learns, and the number of it: one row, full logits, transformers' own attention."""
    ids = torch.tensor([example["input_ids"]])
    labels = torch.full_like(ids, -100)
    for start, end in example["spans"]:
        labels[0, start:end] = ids[0, start:end]
    logits = model.eval()(input_ids=ids).logits
    loss = torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100, reduction="sum"
    )
    return loss.item(), int((labels != -100).sum())


def test_twenty_steps_agree_with_a_plain_loop(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    data, recorder = encoded(chats()[:40], load_prompt("model", tokenizer)), Recorder("response")
    options = {"max_steps": 20, "learning_rate": LEARNING_RATE, "per_device_train_batch_size": 2}
    padded = losses(train(tmp_path, model(), data, recorder, **options))
    flat_ones = losses(train(tmp_path, model(), data, flat(), **options))
    theirs = textbook_loop(model(), recorder.__dict__["batches"][:20], LEARNING_RATE)
    assert len(theirs) == 20
    assert max(abs(a - b) for a, b in zip(padded, theirs, strict=True)) < 1e-5
    assert max(abs(a - b) for a, b in zip(flat_ones, theirs, strict=True)) < 1e-5


def test_greedy_text_is_that_of_generate(prompt: Prompt) -> None:
    network, stops = model().eval(), prompt.contract().stop_token_ids
    prompts_ids = [prompt.encode_prompt(record.messages[:-1]) for record in chats()[:4]]
    ours = generate(network, prompt, prompts_ids, stop_token_ids=stops, batch_size=4, max_new_tokens=24, say=str)
    for ids, response in zip(prompts_ids, ours, strict=True):
        row = torch.tensor([ids])
        written = network.generate(
            row, attention_mask=torch.ones_like(row), do_sample=False, max_new_tokens=24, eos_token_id=stops
        )
        assert response.text == prompt.tokenizer.decode(written[0, len(ids) :], skip_special_tokens=True)


def test_eval_loss_is_that_of_a_plain_computation(tmp_path: Path, prompt: Prompt) -> None:
    data, network = encoded(chats()[:12], prompt), model()
    sums, counts = zip(*(plain_nll(network, example) for example in data), strict=True)
    for collator in (flat(), PaddingCollator(pad_token_id=2, loss_on="response")):
        trainer = HeedTrainer(model=network, args=arguments(tmp_path), eval_dataset=data, data_collator=collator)
        assert trainer.evaluate()["eval_loss"] == pytest.approx(sum(sums) / sum(counts), abs=1e-6)


def test_a_conversation_in_one_pass_has_the_loss_of_its_turns(prompt: Prompt) -> None:
    long = [record for record in chats() if sum(turn["role"] == "assistant" for turn in record.messages) > 1]
    data, network = encoded(long, prompt), model()
    assert len(data) == len(long) == 12
    for record, example in zip(long[:4], data, strict=False):
        turns = [turn for turn, message in enumerate(record.messages) if message["role"] == "assistant"]
        alone = [prompt.encode(record.messages[: turn + 1])._asdict() for turn in turns]
        assert len(example["spans"]) == len(turns)
        assert plain_nll(network, example)[0] == pytest.approx(
            sum(plain_nll(network, each)[0] for each in alone), abs=1e-3
        )


def test_a_run_that_stops_resumes_exactly(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    data = encoded(chats()[:24], load_prompt("model", tokenizer))

    def trainer(folder: Path) -> HeedTrainer:
        options = {"max_steps": 4, "learning_rate": LEARNING_RATE, "per_device_train_batch_size": 2}
        return HeedTrainer(
            model=model(),
            args=arguments(folder, save_strategy="steps", save_steps=1000, **options),
            train_dataset=data,
            data_collator=flat(),
            callbacks=[SaveAt([2])],
        )

    whole = trainer(tmp_path)
    whole.train()
    resumed = trainer(tmp_path)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert losses(resumed)[-2:] == losses(whole)[-2:]
    assert all(torch.equal(a, b) for a, b in zip(resumed.model.parameters(), whole.model.parameters(), strict=True))


def test_an_adapter_learns_and_loads_again(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    data = encoded(chats()[:8], load_prompt("model", tokenizer))
    adapted = adapters.add_adapter(model(), adapters.Adapter(rank=8, alpha=16, dropout=0.0, target_modules=None))
    options = {"max_steps": 8, "learning_rate": 2e-4, "per_device_train_batch_size": 4}
    found = losses(train(tmp_path, adapted, data, flat(), **options))
    assert found[-1] < found[0]
    adapted.save_pretrained(tmp_path / "adapter")
    batch = PaddingCollator(pad_token_id=2, loss_on="response")([data[0], data[1]])
    assert loading.max_logit_difference(adapted, loading.load_finished(str(tmp_path / "adapter")), batch) == 0.0
