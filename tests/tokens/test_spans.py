"""A conversation is one example with a span for every answer, wherever it is what generation would be given."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, trainers
from transformers import AddedToken, PreTrainedTokenizerBase, PreTrainedTokenizerFast, TrainingArguments

from heed.data.records import Record
from heed.errors import UserError
from heed.models.attention import flat_rows
from heed.models.likelihood import target_nll
from heed.prompts.template import Prompt, load_prompt, make_prompt
from heed.tokens import tree
from heed.tokens.batches import FlatCollator, PaddingCollator
from heed.tokens.encoding import Policy, accounted, encode_row, encode_split
from heed.tokens.examples import Example, LossOn
from heed.training.trainer import HeedTrainer
from world.small_world import example, gpt2

POLICY = Policy(max_length=256, on_long_row="error", loss_on="response")
# As reasoning models' templates do: only the last answer is shown with its thinking.
FORGETFUL = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ 'Q: ' + m.content + '\n' }}{% else %}"
    "{{ 'A:' + (m.content if loop.last else m.content.split('</think>')[-1]) + eos_token }}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ 'A:' }}{% endif %}"
)
# It ends no answer, so what is learned has an EOS that the next prompt does not show.
ENDLESS = (
    "{% for m in messages %}{{ m.role[0] + ':' + m.content }}{% endfor %}{% if add_generation_prompt %}a:{% endif %}"
)


def talk(*texts: str) -> Record:
    roles = ("user", "assistant") * (len(texts) // 2)
    turns: Any = tuple({"role": role, "content": text} for role, text in zip(roles, texts, strict=True))
    return Record(row_id=0, place="talk.jsonl:1", messages=turns)


TALK = talk("Hi.", "Hello.", "Who?", "Me.", "Why?", "Because of it all.")


def texts(tokenizer: PreTrainedTokenizerBase, found: Example) -> list[str]:
    return [str(tokenizer.decode(found["input_ids"][start:end])) for start, end in found["spans"]]


def separate(prompt: Prompt, record: Record) -> list[dict[str, Any]]:
    """Each answer with all that comes before it, as generation would be given it."""
    found = []
    for turn in range(1, len(record.messages), 2):
        ids, [(start, _)] = prompt.encode(record.messages[: turn + 1])
        assert ids[:start] == prompt.encode_prompt(record.messages[:turn])
        found.append(example(ids[:start], ids[start:]))
    return found


def test_tokens_that_stand_for_unknown_letters_are_no_control_tokens() -> None:
    """Some tokenizers call their bytes special too."""
    special = ["<unk>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    backend = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    backend.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    letters = trainers.BpeTrainer(vocab_size=400, special_tokens=special, show_progress=False)
    backend.train_from_iterator(["What is asked? Me."], letters)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", unk_token="<unk>")
    [found] = encode_row(talk("Was?", "\u00e9"), load_prompt("alpaca_short", tokenizer), POLICY)
    assert texts(tokenizer, found) == ["\u00e9</s>"]


@pytest.mark.parametrize("style", ["chatml", "alpaca", "alpaca_short", "phi3", "question"])
def test_a_conversation_is_one_example_with_a_span_for_every_answer(
    tokenizer: PreTrainedTokenizerBase, style: str
) -> None:
    prompt = load_prompt(style, tokenizer)
    [found] = encode_row(TALK, prompt, POLICY)
    ends = "<|endoftext|>"
    assert texts(tokenizer, found) == [f"Hello.{ends}", f"Me.{ends}", f"Because of it all.{ends}"]
    for (start, end), alone in zip(found["spans"], separate(prompt, TALK), strict=True):
        assert found["input_ids"][:end] == alone["input_ids"] and [[start, end]] == alone["spans"]
    assert (found["turn"], found["apart"], found["tokens"]) == (5, "", len(found["input_ids"]))


@pytest.mark.parametrize(("style", "answer"), [("alpaca", "'the city"), ("question", "rs of it")])
def test_an_earlier_answer_keeps_its_tokens_where_letters_would_merge_with_its_prompt(
    tokenizer: PreTrainedTokenizerBase, style: str, answer: str
) -> None:
    prompt = load_prompt(style, tokenizer)
    record = talk("Name the numbe", answer, "And why?", "So.")
    text = prompt.render(record.messages[:3], generation_prompt=True)
    [found] = encode_row(record, prompt, POLICY)
    [start, end] = found["spans"][1]
    assert prompt.encode_prompt(record.messages[:3]) == found["input_ids"][:start]
    assert found["input_ids"][:start] != tokenizer.encode(text)  # as it would be without the seam
    assert texts(tokenizer, found) == [f"{answer}<|endoftext|>", "So.<|endoftext|>"] and end == found["tokens"]


def test_answers_that_a_template_shows_differently_later_are_separate_examples(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    prompt = make_prompt("forgetful", FORGETFUL, tokenizer)
    thought = talk("One?", "<think>hm</think>1.", "Two?", "2.", "Three?", "<think>oh</think>3.")
    first, second = encode_row(thought, prompt, POLICY)
    assert texts(tokenizer, first) == ["<think>hm</think>1.<|endoftext|>"]
    # The second answer's prompt has lost the thinking; the third continues it.
    assert texts(tokenizer, second) == ["2.<|endoftext|>", "<think>oh</think>3.<|endoftext|>"]
    assert (first["apart"], second["apart"]) == ("", "history")
    counts = encode_split([thought], prompt, POLICY).counts
    assert (counts["rows"], counts["examples"], counts["apart_history"], counts["apart_tokens"]) == (1, 2, 1, 0)
    [line] = accounted(counts, 256)
    assert line.endswith(
        "1 answers do not continue the example before: the template shows earlier turns differently from how they "
        "were learned"
    )


def test_answers_whose_ids_the_next_prompt_does_not_have_are_separate_examples(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    found = encode_row(TALK, make_prompt("endless", ENDLESS, tokenizer), POLICY)
    assert [each["apart"] for each in found] == ["", "tokens", "tokens"]
    assert [texts(tokenizer, each) for each in found][:2] == [["Hello.<|endoftext|>"], ["Me.<|endoftext|>"]]


def test_a_control_token_that_turns_into_letters_is_an_error_that_names_the_row(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.add_tokens([AddedToken("<end>", special=True, single_word=True)])  # letters beside letters
    template = "{% for m in messages %}{{ m.content + '<end>\n' }}{% endfor %}"
    prompt = make_prompt("marked", template, tokenizer)
    end = tokenizer.convert_tokens_to_ids("<end>")
    [found] = encode_row(talk("Which <end>?", "Both <end>."), prompt, POLICY)
    assert found["input_ids"].count(end) == 2  # typed ones are text
    with pytest.raises(UserError, match=r"talk.jsonl:1: prompt 'marked': the control tokens .* here \(<end>\) are not"):
        encode_row(talk("Which one", "Both."), prompt, POLICY)


def test_under_loss_on_all_the_last_example_teaches_the_conversation_once(tokenizer: PreTrainedTokenizerBase) -> None:
    policy = replace(POLICY, loss_on="all")
    for template in (load_prompt("chatml", tokenizer).template, ENDLESS):
        prompt = make_prompt("own", template, tokenizer)
        [found] = encode_row(TALK, prompt, policy)
        assert found["input_ids"] == prompt.encode(TALK.messages).input_ids and found["apart"] == ""


@pytest.mark.parametrize("on_long_row", ["error", "drop", "cut_prompt", "cut_response"])
def test_max_length_does_to_each_answer_what_it_does_to_one_alone(
    tokenizer: PreTrainedTokenizerBase, on_long_row: Any
) -> None:
    prompt = load_prompt("chatml", tokenizer)
    first, second, third = (len(each["input_ids"]) for each in separate(prompt, TALK))

    def fitted(max_length: int) -> list[tuple[str, list[str], int]]:
        policy = Policy(max_length=max_length, on_long_row=on_long_row, loss_on="response")
        found = encode_row(TALK, prompt, policy)
        assert all(each["tokens"] <= max_length or each["outcome"] == "too_long" for each in found)
        return [
            (each["outcome"], [text.removesuffix("<|endoftext|>") for text in texts(tokenizer, each)], each["tokens"])
            for each in found
        ]

    assert fitted(third) == [("whole", ["Hello.", "Me.", "Because of it all."], third)]
    two = ("whole", ["Hello.", "Me."], second)
    last = "Because of it all."
    assert (
        fitted(third - 2)
        == {
            "error": [two, ("too_long", [last], third)],
            "drop": [two, ("too_long", [last], third)],
            "cut_prompt": [two, ("cut_prompt", [last], third - 2)],
            "cut_response": [("cut_response", ["Hello.", "Me.", "Because of it all"], third - 2)],
        }[on_long_row]
    )
    # Where not even the last question fits, its answer is lost, and those before it are not.
    if on_long_row == "cut_response":
        assert fitted(second) == [two, ("too_long", [last], third)]
        assert fitted(first)[0] == ("whole", ["Hello."], first)


def sums(model: Any, batch: dict[str, Any], *, flat: bool) -> tuple[float, torch.Tensor]:
    """The summed loss over targets, and its gradient."""
    model.zero_grad()
    if flat:
        with flat_rows(model.config):
            loss = (target_nll(model, batch) * batch["weights"]).sum()
            loss.backward()
    else:
        loss = (target_nll(model, batch) * batch["weights"]).sum()
        loss.backward()
    return loss.item(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def test_loss_and_gradient_are_those_of_separate_examples(
    tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tree, "LEAST", 1)
    prompt, model = load_prompt("chatml", tokenizer), gpt2().double()
    other = talk("Hi.", "Ho!", "Who?", "You.")
    joined = [encode_row(record, prompt, POLICY)[0] for record in (TALK, other)]
    alone = [each for record in (TALK, other) for each in separate(prompt, record)]
    padded = PaddingCollator(pad_token_id=0, loss_on="response")
    wanted, gradient = sums(model, padded(alone), flat=False)
    found = {"padded": sums(model, padded(joined), flat=False)}
    for share in (False, True):
        flat = FlatCollator(pad_token_id=0, loss_on="response", share_prefix=share)
        found |= {f"flat {share}": sums(model, flat(joined), flat=True)}
        found |= {f"flat alone {share}": sums(model, flat(alone), flat=True)}
    for name, (loss, its_gradient) in found.items():
        assert abs(loss - wanted) < 1e-11, name
        assert (its_gradient - gradient).norm() / gradient.norm() < 1e-12, name
    # Shared at every depth, separate answers cost no more than one example.
    assert flat(alone)["input_ids"].numel() == flat(joined)["input_ids"].numel() < sum(e["tokens"] for e in joined)


@pytest.mark.parametrize("loss_on", ["response", "all"])
def test_evaluation_finds_what_it_finds_for_separate_examples(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path, loss_on: LossOn
) -> None:
    prompt, model = load_prompt("chatml", tokenizer), gpt2().double()
    args = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none", disable_tqdm=True)
    [joined], alone = encode_row(TALK, prompt, POLICY), separate(prompt, TALK)
    for collator in (
        PaddingCollator(pad_token_id=0, loss_on=loss_on),
        FlatCollator(pad_token_id=0, loss_on=loss_on, share_prefix=True),
    ):
        one, three = (
            HeedTrainer(
                model=model, args=args, eval_dataset=Dataset.from_list(list(rows)), data_collator=collator
            ).evaluate()
            for rows in ([joined], alone)
        )
        names = ["eval_p_eos", "eval_premature_eos", "eval_cut_rows"]
        if loss_on == "response":
            names += ["eval_loss", "eval_tokens"]
        assert [one[name] for name in names] == pytest.approx([three[name] for name in names], abs=1e-12)
        assert (one["eval_rows"], three["eval_rows"]) == (1, 3)


def test_an_answer_of_weight_0_is_read_and_not_learned(tokenizer: PreTrainedTokenizerBase) -> None:
    prompt = load_prompt("question", tokenizer)
    turns: Any = tuple(message | ({"weight": 0} if place == 3 else {}) for place, message in enumerate(TALK.messages))
    [found] = encode_row(replace(TALK, messages=turns), prompt, POLICY)
    [whole] = encode_row(TALK, prompt, POLICY)
    assert found["input_ids"] == whole["input_ids"]
    assert found["spans"] == [whole["spans"][0], whole["spans"][2]]
