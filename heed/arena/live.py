"""Models and endpoints that answer live."""

import asyncio
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from heed.answers.streaming import stream_answer
from heed.answers.subjects import find_prompt, load_subject
from heed.arena.contestants import Ask, Failed, Said
from heed.arena.matches import Question
from heed.errors import UserError
from heed.models.loading import load_tokenizer
from heed.prompts.template import Contract, Prompt, fetch_contract, prompt_from_contract
from heed.runs.finished import Subject, find_run, weight_bits
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


def load_all(subjects: Sequence[Subject], *, dtype: str, prompt: str | None) -> list[Loaded]:
    """Models, each with its own prompt contract.

    A model without a contract is asked by what `prompt` names, otherwise by the first contract among the others, as a
    base model is beside the model that was made of it. Raises UserError when there is neither, or when that contract
    would give other ids with the model's tokenizer; and for a `prompt` that no model needs.
    """
    contracts = [fetch_contract(each.model, each.revision) for each in subjects]
    if prompt is not None and None not in contracts:
        raise UserError(f"prompt: {prompt} has no effect: every model brings its own contract; leave it out")
    first = next((contract for contract in contracts if contract is not None), None)
    found = []
    for subject, own in zip(subjects, contracts, strict=True):
        named = None if own is not None else prompt
        if own is None and named is None and first is not None:
            tokenizer = load_tokenizer(subject.model, subject.revision)
            tokenizer.chat_template = None  # that of a base model does not count here
            ready, contract = prompt_from_contract(first, tokenizer), first
        else:
            ready, contract = find_prompt(subject.model, subject.revision, named)
        model = load_subject(subject, dtype=dtype, bits=weight_bits(find_run(subject.model)))
        found.append(Loaded(subject=subject, model=model, prompt=ready, contract=contract))
    return found


def model_asker(loaded: Loaded, *, max_new_tokens: int) -> Ask:
    """Greedy answers of a loaded model, one at a time, asked by its contract."""
    one_at_a_time = threading.Lock()

    def ask(question: Question, say: Say, stop: threading.Event) -> Said | Failed:
        grown = ""

        def write(piece: str) -> None:
            nonlocal grown
            grown += piece
            say(grown)

        try:
            with one_at_a_time:
                answer = stream_answer(
                    loaded.model,
                    loaded.prompt,
                    question.messages,
                    stop_token_ids=loaded.contract.stop_token_ids,
                    max_new_tokens=max_new_tokens,
                    write=write,
                    stop=stop,
                )
        except UserError as error:
            return Failed(reason=str(error))
        return Said(text=answer.text, cut=answer.cut)

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
            raise UserError(f"endpoints.{name}: the environment variable {endpoint['key_variable']} has no key")
    server = Server(base_url=endpoint["base_url"], token=token, timeout=TIMEOUT)

    def ask(question: Question, say: Say, stop: threading.Event) -> Said | Failed:
        body = {
            "model": endpoint["model"],
            "messages": chat_messages(question.messages, None),
            "max_tokens": max_new_tokens,
            "temperature": 0,
            "seed": 0,
        }

        async def streamed() -> Said | Failed:
            async with Client(server) as client:
                try:
                    said = await client.stream(body, say, stop)
                except NoReply as error:
                    return Failed(reason=f"{server.base_url}: {error.detail}")
            return Said(text=said.text, cut=said.finish_reason == "length")

        return asyncio.run(streamed())

    return ask
