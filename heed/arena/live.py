"""Models and endpoints that answer while one watches."""

import asyncio
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import StoppingCriteria, TextStreamer

from heed.answers.decoding import plain_generation
from heed.answers.subjects import find_prompt, load_subject
from heed.arena.contestants import Answer, Ask, Failed
from heed.arena.matches import Question
from heed.errors import UserError
from heed.models.loading import context_length, load_tokenizer
from heed.models.memory import is_out_of_memory
from heed.prompts.template import Contract, Prompt, fetch_contract, prompt_from_contract
from heed.runs.finished import Subject, find_run, in_4bit
from heed.saying import Say
from heed.servers.addresses import check_address

TIMEOUT = 300.0  # seconds for a whole answer


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A model in memory and how it is asked."""

    subject: Subject
    model: Any
    prompt: Prompt
    contract: Contract


def load_all(subjects: Sequence[Subject], *, dtype: str, prompt: Callable[[], str | None]) -> list[Loaded]:
    """Models, each with its own prompt contract.

    A model without a contract is asked by what `prompt` names, or else by the first contract among the others, as a
    base model is beside the model that was made of it. Raises UserError when there is neither, or when that contract
    would give other ids with the model's tokenizer.
    """
    contracts = [fetch_contract(each.model, each.revision) for each in subjects]
    first = next((contract for contract in contracts if contract is not None), None)
    found = []
    for subject, own in zip(subjects, contracts, strict=True):
        named = None if own is not None else prompt()
        if own is None and named is None and first is not None:
            tokenizer = load_tokenizer(subject.model, subject.revision)
            tokenizer.chat_template = None  # that of a base model has no say here
            ready, contract = prompt_from_contract(first, tokenizer), first
        else:
            ready, contract = find_prompt(subject.model, subject.revision, named)
        model = load_subject(subject, dtype=dtype, load_in_4bit=in_4bit(find_run(subject.model), None))
        found.append(Loaded(subject=subject, model=model, prompt=ready, contract=contract))
    return found


class Growing(TextStreamer):
    """Says the whole text so far whenever there is more of it."""

    def __init__(self, tokenizer: Any, say: Say) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self.text = ""
        self.say = say

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        self.text += text
        self.say(self.text)


class Stopped(StoppingCriteria):
    """Ends generation when nobody waits for it any more."""

    def __init__(self, stop: threading.Event) -> None:
        self.stop = stop

    def __call__(self, input_ids: torch.Tensor, scores: Any, **options: Any) -> torch.Tensor:
        return torch.full((len(input_ids),), self.stop.is_set(), device=input_ids.device)


def model_asker(loaded: Loaded, *, max_new_tokens: int) -> Ask:
    """Greedy answers of a loaded model, one at a time, asked by its contract; the same text as `generate` gives."""
    one_at_a_time = threading.Lock()
    model, prompt = loaded.model, loaded.prompt

    def ask(question: Question, say: Say, stop: threading.Event) -> Answer | Failed:
        try:
            ids = prompt.encode_prompt(question.messages)
        except UserError as error:
            return Failed(reason=str(error))
        room = context_length(model) - len(ids)
        if room < 1:
            return Failed(reason=f"the question has {len(ids)} tokens, the model {context_length(model)} positions")
        input_ids = torch.tensor([ids], device=model.device)
        try:
            with one_at_a_time, plain_generation(model), torch.no_grad():
                output = model.generate(
                    input_ids=input_ids,
                    attention_mask=torch.ones_like(input_ids),
                    do_sample=False,
                    num_beams=1,
                    max_new_tokens=min(max_new_tokens, room),
                    eos_token_id=list(loaded.contract.stop_token_ids),
                    pad_token_id=prompt.eos_token_id,
                    streamer=Growing(prompt.tokenizer, say),
                    stopping_criteria=[Stopped(stop)],
                )
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return Failed(reason=f"memory does not suffice for a question of {len(ids)} tokens")
        written = output[0, len(ids) :].tolist()
        stopped = bool(written) and written[-1] in loaded.contract.stop_token_ids
        text = prompt.tokenizer.decode(written[:-1] if stopped else written, skip_special_tokens=True)
        return Answer(text=str(text), cut=not stopped)

    return ask


def endpoint_asker(name: str, endpoint: dict[str, str], *, max_new_tokens: int) -> Ask:
    """Answers of an OpenAI-compatible server, which renders the prompt by its own template.

    A key is sent to no server but the one it is given for. Raises UserError for an endpoint without base_url or model.
    """
    from heed.answers.endpoint import chat_messages
    from heed.servers.client import NO_KEY, Client, NoReply, Server

    if not {"base_url", "model"} <= set(endpoint) <= {"base_url", "model", "key_variable"}:
        raise UserError(
            f"endpoints.{name}: expected {{base_url: http://..., model: ..., key_variable: ...}}, found "
            f"{', '.join(sorted(endpoint)) or 'nothing'}; only key_variable may be left out"
        )
    check_address(endpoint["base_url"], key=f"endpoints.{name}.base_url", token="key_variable")
    token = NO_KEY
    if "key_variable" in endpoint:
        token = os.environ.get(endpoint["key_variable"], "")
        if not token:
            raise UserError(f"endpoints.{name}: the environment variable {endpoint['key_variable']} holds no key")
    server = Server(base_url=endpoint["base_url"], token=token, timeout=TIMEOUT)

    def ask(question: Question, say: Say, stop: threading.Event) -> Answer | Failed:
        body = {
            "model": endpoint["model"],
            "messages": chat_messages(question.messages, None),
            "max_tokens": max_new_tokens,
            "temperature": 0,
            "seed": 0,
        }

        async def streamed() -> Answer | Failed:
            async with Client(server) as client:
                try:
                    said = await client.stream(body, say, stop)
                except NoReply as error:
                    return Failed(reason=f"{server.base_url}: {error.detail}")
            return Answer(text=said.text, cut=said.finish_reason == "length")

        return asyncio.run(streamed())

    return ask
