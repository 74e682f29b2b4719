"""Whether llama.cpp answers from a file as the run does: held-out rows, greedily, token by token."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, cast

import torch

from heed.answers.decoding import decode_batch
from heed.answers.endpoint import chat_messages
from heed.answers.subjects import find_prompt, load_subject
from heed.data.records import Message, Record
from heed.errors import UserError
from heed.export import llama_cpp
from heed.models.loading import context_length
from heed.models.memory import BatchSize
from heed.prompts.template import Prompt
from heed.runs.finished import Subject, find_run, set_aside, setting
from heed.saying import Progress

ROWS = 20
ENOUGH = 0.95  # of the rows
EXACT = ("f32", "f16")
"""Types whose rounding is expected to change no greedy answer; of others it is only told."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One held-out row, asked of both."""

    place: str
    by_message: bool
    """Whether the file's own template rendered it; where no chat message can say a row, the text is the run's."""
    same_prompt: bool
    """Whether llama.cpp makes the very ids of the prompt."""
    ours: list[int]
    theirs: list[int]
    preference: float | None
    """By how many nats the run prefers its own token to theirs where they first differ: nearly 0 is a tie."""

    @property
    def difference(self) -> int | None:
        return first_difference(self.ours, self.theirs)

    @property
    def same(self) -> bool:
        return self.same_prompt and self.difference is None


@dataclass(frozen=True, kw_only=True)
class Proof:
    rows: Sequence[Row]
    too_long: int
    """Rows that were not asked, since the model has no positions left to answer them."""
    max_new_tokens: int
    runtime: str

    @property
    def same(self) -> int:
        return sum(row.same for row in self.rows)

    def holds(self, type: str) -> bool:
        prompts = sum(row.same_prompt for row in self.rows)
        return min(prompts, self.same if type in EXACT else prompts) >= ENOUGH * len(self.rows)


def prepared(run: str) -> tuple[list[str], list[Record]] | str:
    """The runtime and the rows to ask; or why there can be no proof."""
    runtime, folder = llama_cpp.command(), find_run(run)
    if runtime is None:
        return f"no {llama_cpp.PROGRAM} is on the PATH, and `make export-setup` brought none"
    if folder is None:
        return f"{run} is not in a run folder, so it is not known which rows it has not learned"
    try:
        return runtime, set_aside(folder, "test")
    except UserError as error:
        return str(error)


def prove(run: str, file: Path, runtime: Sequence[str], records: Sequence[Record]) -> Proof:
    """Ask the run, then llama.cpp with `file`, for the answers to the first rows that fit into the model's context."""
    prompt, contract = find_prompt(run, None, None)
    model = load_subject(Subject(name="tuned", model=run), dtype="float32", bits=None)
    positions, most = context_length(model), setting(cast("Path", find_run(run)), "compare_max_new_tokens")
    asked = [(record, prompt.encode_prompt(record.messages[:-1])) for record in records[:ROWS]]
    fitting = [(record, ids, min(most, positions - len(ids))) for record, ids in asked if len(ids) < positions]
    if not fitting:
        raise UserError(f"{run}: no held-out row leaves the model room to answer; there is nothing to prove it by")
    ours = {
        finished.row: finished.ids
        for finished in decode_batch(
            model,
            [ids for _, ids, _ in fitting],
            limits=[limit for *_, limit in fitting],
            stop_token_ids=contract.stop_token_ids,
            pad_token_id=prompt.eos_token_id,
            size=BatchSize(ROWS, key="--out", relief="export on a machine with more memory", say=print),
        )
    }
    rows = []
    context = max(len(ids) + limit for _, ids, limit in fitting)
    with llama_cpp.serving(runtime, file, context=context) as server, Progress("llama.cpp answers", len(ours)) as bar:
        for index, (record, ids, limit) in enumerate(fitting):
            messages = as_messages(record.messages[:-1], prompt)
            text = server.render(messages) if messages else prompt.render(record.messages[:-1], generation_prompt=True)
            theirs = server.answer(text, limit=limit)
            rows.append(
                Row(
                    place=record.place,
                    by_message=messages is not None,
                    same_prompt=server.tokenize(text) == ids,
                    ours=ours[index],
                    theirs=theirs,
                    preference=preference(model, ids, ours[index], theirs),
                )
            )
            bar.update()
    return Proof(rows=rows, too_long=len(asked) - len(fitting), max_new_tokens=most, runtime=llama_cpp.version(runtime))


def first_difference(ours: Sequence[int], theirs: Sequence[int]) -> int | None:
    both = enumerate(zip_longest(ours, theirs))
    return next((place for place, (one, other) in both if one != other), None)


@torch.no_grad()
def preference(model: Any, ids: Sequence[int], ours: Sequence[int], theirs: Sequence[int]) -> float | None:
    """None where the answers are the same, or one of them is the other's beginning."""
    place = first_difference(ours, theirs)
    if place is None or place >= min(len(ours), len(theirs)):
        return None
    read = torch.tensor([[*ids, *ours[:place]]], device=model.device)
    scores = model(input_ids=read).logits[0, -1]
    return float(scores[ours[place]] - scores[theirs[place]])


def as_messages(conversation: Sequence[Message], prompt: Prompt) -> list[dict[str, str]] | None:
    """What a server is sent; None where no chat message can say it (an input that changes the preamble, tools)."""
    try:
        return chat_messages(conversation, prompt)
    except UserError:
        return None
