"""lm_eval's own model for Hugging Face, asked with the prompt contract that the model was trained with."""

from array import array
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import CacheHook
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import normalize_gen_kwargs

from heed.data.records import Message
from heed.prompts.template import Contract, Prompt

SMALLEST_ROOM = 32
"""Tokens that an answer gets at least; a prompt that leaves fewer is cut at its beginning."""
LENGTH_NAMES = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
STEP = 64
"""Rooms differ by this many tokens, so that prompts of similar length are still answered in one batch."""


class ContractLM(HFLM):
    """HFLM with the template, the tokenization and the stop tokens of training.

    With the chat template on, prompts are rendered by heed.prompts: text that a benchmark quotes never becomes a
    control token, and prompt and answer are tokenized separately, as in training. Where a task allows an answer more
    tokens than the model's context has left, the answer gets what is left; lm_eval would cut the prompt, or stop.
    """

    def __init__(self, model: Any, prompt: Prompt, contract: Contract, *, chat_template: bool, batch_size: int) -> None:
        super().__init__(pretrained=model, tokenizer=prompt.tokenizer, backend="causal", batch_size=batch_size)
        model.generation_config.eos_token_id = list(contract.stop_token_ids)
        self.cache_hook: CacheHook
        self.prompt = prompt
        self.uses_template = chat_template
        self.fenced: dict[str, array[int]] = {}
        """Ids of the prompts that quote a control token; their text alone would not tell."""

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """The prompt as heed.prompts renders it; without a generation prompt the last turn begins the answer."""
        turns: list[Message] = chat_history if add_generation_prompt else chat_history[:-1]  # type: ignore[assignment]
        begun = "" if add_generation_prompt else chat_history[-1]["content"]
        text = self.prompt.render(turns, generation_prompt=True)
        if any(self.prompt.control_tokens.search(turn["content"]) for turn in turns):
            ids = self.prompt.encode_prompt(turns) + self.tokenizer.encode(begun, add_special_tokens=False)
            self.fenced[text + begun] = array("i", ids)
        return text + begun

    def tok_encode(
        self,
        string: str,
        add_special_tokens: bool | None = None,
        left_truncate_len: int | None = None,
        **options: Any,
    ) -> list[int]:
        if not self.uses_template:
            return list(super().tok_encode(string, add_special_tokens, left_truncate_len, **options))
        ids = self.fenced.get(string)
        return list(ids) if ids is not None else self.tokenizer.encode(string, add_special_tokens=False)

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        if not self.uses_template:
            return super()._encode_pair(context, continuation)
        return self.tok_encode(context), self.tok_encode(continuation)

    def tok_batch_encode(
        self,
        strings: list[str],
        padding_side: str = "left",
        left_truncate_len: int | None = None,
        truncation: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        rows = [self.tok_encode(string)[-(left_truncate_len or 0) :] for string in strings]
        longest = max(map(len, rows))
        input_ids = torch.full((len(rows), longest), self.prompt.eos_token_id)
        attention_mask = torch.zeros_like(input_ids)
        for number, ids in enumerate(rows):
            place = slice(longest - len(ids), None) if padding_side == "left" else slice(len(ids))
            input_ids[number, place] = torch.tensor(ids)
            attention_mask[number, place] = 1
        return input_ids, attention_mask

    def asked_tokens(self, options: dict[str, Any]) -> int:
        """How long an answer a task allows; tasks have several names for it."""
        return int(normalize_gen_kwargs(options, self.max_gen_toks)["max_gen_toks"])

    def room(self, context: str, asked: int) -> int:
        """Tokens an answer may have: as many as the task allows, or as the context leaves."""
        left = self.max_length - len(self.tok_encode(context))
        return asked if left >= asked else max(left // STEP * STEP, SMALLEST_ROOM)

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Answers in the order of the requests, those with equal room together."""
        together: dict[int, list[int]] = defaultdict(list)
        for index, request in enumerate(requests):
            context, options = request.args
            together[self.room(context, self.asked_tokens(options))].append(index)
        answers: dict[int, str] = {}
        for room, indices in together.items():
            clones = [with_room(requests[index], room) for index in indices]
            hook: CacheHook = self.cache_hook
            self.cache_hook = AskedHook(hook, clones, [requests[index] for index in indices])
            try:
                answers.update(zip(indices, super().generate_until(clones, disable_tqdm), strict=True))
            finally:
                self.cache_hook = hook
        return [answers[index] for index in range(len(requests))]

    def tokens_over(self, sample: dict[str, Any]) -> int:
        """Tokens of a sample's longest request that the model could not be shown, at the beginning of its prompt."""
        return max(self.request_tokens_over(*arguments) for arguments in sample["arguments"])

    def request_tokens_over(self, context: str, wanted: Any) -> int:
        if isinstance(wanted, str):  # a continuation to score; its last token is only predicted
            context_ids, continuation_ids = self._encode_pair(context, wanted) if context else ([0], [0])
            return max(0, len(context_ids) + len(continuation_ids) - 1 - self.max_length)
        room = self.room(context, self.asked_tokens(wanted))
        return max(0, len(self.tok_encode(context)) + room - self.max_length)

    def is_cramped(self, sample: dict[str, Any]) -> bool:
        """Whether the answer had less room than its task allows."""
        return any(
            not isinstance(wanted, str) and self.room(context, self.asked_tokens(wanted)) < self.asked_tokens(wanted)
            for context, wanted in sample["arguments"]
        )


class AskedHook(CacheHook):
    """Stores an answer under the request as the task made it, where a repeated run will look for it."""

    def __init__(self, hook: CacheHook, clones: Sequence[Instance], asked: Sequence[Instance]) -> None:
        self.hook = hook
        self.asked = {repr(clone.args): each.args for clone, each in zip(clones, asked, strict=True)}

    def add_partial(self, attr: str, req: Any, res: Any) -> None:
        self.hook.add_partial(attr, self.asked[repr(tuple(req))], res)


def with_room(request: Instance, room: int) -> Instance:
    """The request again, with another limit for its answer."""
    context, options = request.args
    kept = {name: value for name, value in options.items() if name not in LENGTH_NAMES}
    return Instance(
        request_type=request.request_type,
        doc=request.doc,
        arguments=(context, {**kept, "max_gen_toks": room}),
        idx=request.idx,
        metadata=request.metadata,
    )
