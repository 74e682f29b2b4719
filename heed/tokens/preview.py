"""What will be learned, token by token, for a person to look at before the first step."""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from heed.saying import Painted, count
from heed.tokens.examples import Example

LINE = 160  # characters
NEEDED = "\u200c\u200d\u3000"  # the joiners of Persian, Hindi and emoji, and the space of Chinese and Japanese
GREEN, RED, DIM, PLAIN = "\033[32m", "\033[31m", "\033[2m", "\033[0m"
CUTS = {
    "cut_prompt": "the prompt's beginning is cut off (max_length)",
    "too_long": "longer than max_length, so it is left out",
    "cut_response": "the response's end is cut off (max_length): EOS is not learned",
}


def wants_color() -> bool:
    """Colors are for terminals, unless the user has turned them off (no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def places_in_loss(batch: Mapping[str, Any]) -> list[int]:
    """Places of the tokens that are learned in a batch of one example, read from what the loss is given.

    A logit predicts the token after its own place.
    """
    kept, targets, weights = (batch[name].tolist() for name in ("logits_to_keep", "targets", "weights"))
    learned = [(place + 1, token) for place, token, weight in zip(kept, targets, weights, strict=True) if weight]
    ids = batch["input_ids"][0].tolist()
    assert all(ids[place] == token for place, token in learned), "a target is not the token at its place"
    return sorted(place for place, _ in learned)


@dataclass(frozen=True, kw_only=True)
class Learned:
    """How much of some examples is learned, by the collator's targets."""

    examples: int
    prompt: float
    """Share of the prompts' tokens."""
    response: float
    whole: int
    """Responses that were not cut."""
    eos: int
    """How many of those learn their EOS."""

    def __str__(self) -> str:
        return (
            f"response {percent(self.response)}, prompt {percent(self.prompt)}, EOS in {self.eos} of {self.whole} "
            f"whole responses (targets of {count(self.examples, 'example')} as the collator makes them)"
        )


def percent(share: float) -> str:
    """100 % and 0 % are shown only for all and nothing."""
    shown = min(99.9, max(0.1, 100 * share)) if 0 < share < 1 else 100 * share
    return f"{shown:.1f} %" if shown % 1 else f"{shown:.0f} %"


def measure_learned(examples: Sequence[Example], collator: Any, eos_token_id: int) -> Learned:
    """Puts each example alone through the training's collator and counts its targets."""
    prompt = response = learned_prompt = learned_response = whole = eos = 0
    for example in examples:
        places = set(places_in_loss(collator([example])))
        inside = {place for start, end in example["spans"] for place in range(start, end)}
        prompt, response = prompt + len(example["input_ids"]) - len(inside), response + len(inside)
        learned_prompt += len(places - inside)
        learned_response += len(places & inside)
        ends = [end - 1 for _, end in example["spans"] if example["input_ids"][end - 1] == eos_token_id]
        whole += len(ends)
        eos += len(places.intersection(ends))
    return Learned(
        examples=len(examples),
        prompt=learned_prompt / max(1, prompt),
        response=learned_response / max(1, response),
        whole=whole,
        eos=eos,
    )


LONGEST_LETTER = 4  # bytes, and so tokens at most


def token_texts(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> list[str]:
    """Each token's text. A letter of several tokens is shown at the last of them; the others are empty."""
    texts: list[str] = []
    pending: list[int] = []
    for token in ids:
        pending.append(token)
        text = str(tokenizer.decode(pending))
        if text.endswith("\ufffd") and len(pending) < LONGEST_LETTER:
            texts.append("")
            continue
        texts.append(text)
        pending.clear()
    if pending:
        texts[-1] = str(tokenizer.decode(pending))
    return texts


def preview(
    tokenizer: PreTrainedTokenizerBase, input_ids: Sequence[int], learned: Sequence[int], *, color: bool
) -> str:
    """One row as its tokens: learned ones in green, or in [brackets] where there is no color; others end in a bar."""
    shown, places = [], set(learned)
    for place, text in enumerate(map(escaped, token_texts(tokenizer, input_ids))):
        if color:
            shown.append(f"{GREEN if place in places else DIM}{text}{PLAIN}{DIM}|{PLAIN}")
        else:
            shown.append(f"[{text}]" if place in places else f"{text}|")
    return "".join(shown)


def preview_rows(
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    collator: Any,
    places: Mapping[int, str] | None = None,
) -> Painted:
    """Some encoded examples exactly as the collator hands them to the model, one after the other.

    `places` says, by row id, where to find the row.
    """
    color = wants_color()
    texts = []
    for example in examples:
        batch = collator([example])
        input_ids, learned = batch["input_ids"][0].tolist(), places_in_loss(batch)
        responses = sum(end - start for start, end in example["spans"])
        of_response = sum(start <= place < end for place in learned for start, end in example["spans"])
        where = f" ({one_line(places[example['row_id']])})" if places else ""
        stops = [end - 1 in learned and input_ids[end - 1] == collator.pad_token_id for _, end in example["spans"]]
        ends = "EOS learned" if all(stops) else "EOS not learned"
        if len(stops) > 1:
            ends = f"EOS of {sum(stops)} of {len(stops)} responses learned"
        text = preview(tokenizer, input_ids, learned, color=color)
        shares = (
            f"response {of_response} of {responses}, "
            f"prompt {len(learned) - of_response} of {len(input_ids) - responses}"
        )
        cut = CUTS.get(example.get("outcome", "whole"))
        if cut:
            mark = f"{RED}<cut: {cut}>{PLAIN}" if color else f"<cut: {cut}>"
            text = mark + text if example["outcome"] == "cut_prompt" else text + mark
        texts.append(
            f"row {example['row_id']}{where}: {count(len(input_ids), 'token')}, {len(learned)} learned "
            f"({shares}; {ends})\n{text}"
        )
    legend = f"{GREEN}learned{PLAIN}, {DIM}only read{PLAIN}" if color else "[learned], only read|"
    return Painted(f"what is learned, token by token: {legend}\n\n" + "\n\n".join(texts))


def escaped(text: str) -> str:
    """What cannot be seen is shown: control characters, line ends, odd spaces; but for what words and emoji need."""
    return "".join(letter if letter.isprintable() or letter in NEEDED else repr(letter)[1:-1] for letter in text)


def one_line(text: str) -> str:
    """Text fit for one line of a terminal: control characters are shown, not obeyed, and a long text is cut.

    The whole text is in the files of the run.
    """
    shown = escaped(text)
    return shown if len(shown) <= LINE else shown[:LINE] + " ..."
