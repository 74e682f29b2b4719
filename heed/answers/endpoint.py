"""Greedy answers from a server that speaks OpenAI's chat completions: the prompts go as messages, not as ids.

The server renders the messages with its own chat template, cuts them to its own context, stops at its own stop ids and
adds whatever its own generation_config says (a repetition penalty, for one); it is asked for temperature 0 and a number
of tokens, and for nothing else. A model that Heed has trained brings template and stop ids to a server, so that
`transformers serve` answers as the local engines do (tested).
"""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from heed.answers.partial import OnResponse, Response
from heed.data.records import Message
from heed.errors import UserError
from heed.prompts.template import Prompt, join_input
from heed.saying import Say, count
from heed.servers.addresses import check_address
from heed.servers.client import KEY, Client, NoReply, Server, token_for

PLACEHOLDER = "\ue000"  # in place of a user's words, to find out what the template writes around them


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """A server, and how it is asked."""

    base_url: str
    """As the SDK wants it, usually ending in /v1."""
    model: str
    concurrency: int = 4
    """Requests sent at once."""
    timeout: float = 120.0
    """Seconds for one request."""
    max_retries: int = 5
    """After 408, 409, 429, 5xx, a time-out or a lost connection, with growing pauses between (the SDK's)."""

    def __post_init__(self) -> None:
        check_address(self.base_url, key="base_url", token=KEY)
        if self.concurrency < 1:
            raise UserError(f"concurrency: {self.concurrency} asks nothing; give 1 or more")
        if self.timeout <= 0:
            raise UserError(f"timeout: {self.timeout:g} seconds leave no time to answer")

    @property
    def server(self) -> Server:
        """Raises UserError where a key is missing."""
        return Server(
            base_url=self.base_url,
            token=token_for(self.base_url, key="base_url"),
            timeout=self.timeout,
            retries=self.max_retries,
        )


def ask(
    endpoint: Endpoint,
    conversations: Sequence[Sequence[Message]],
    *,
    prompt: Prompt | None,
    max_new_tokens: int,
    on_response: OnResponse = lambda index, response: None,
    say: Say = print,
) -> list[Response]:
    """The server's answers to `conversations`, each of which ends with the user's turn; in order.

    `prompt` is the contract of the model that the server runs, or None for a model with its own chat template;
    `chat_messages` says what it is for. `seconds` is the request's own time; requests overlap. Stop reason and token
    counts are the server's. Raises UserError when the server cannot be reached or refuses, naming row and way out;
    what was answered before has been given to `on_response`.
    """
    asked = [chat_messages(conversation, prompt) for conversation in conversations]
    if prompt is not None:
        marked = [any(prompt.control_tokens.search(each["content"]) for each in messages) for messages in asked]
        if any(marked):
            say(
                f"{count(sum(marked), 'row')} with control tokens typed by the author; a server may not take them for "
                "text"
            )
    unknown = Counter[str]()
    responses = asyncio.run(
        ask_all(endpoint, asked, max_new_tokens=max_new_tokens, on_response=on_response, unknown=unknown)
    )
    filtered = sum(response.finish_reason == "content_filter" for response in responses)
    if filtered:
        say(f"{count(filtered, 'answer')} cut by the server's content filter")
    if unknown:
        say(
            f"{unknown.total()} answers ended for a reason that does not say whether they are whole "
            f"({', '.join(sorted(unknown))}); they count neither as whole nor as cut"
        )
    return responses


def chat_messages(conversation: Sequence[Message], prompt: Prompt | None) -> list[dict[str, str]]:
    """The messages to send: `role` and `content`, since servers drop or refuse any other field, such as `input`.

    For a model trained with `prompt`, a row's input is written into the content just as the template would show it, so
    that the server renders the very text of training; a template for which that is impossible is refused (alpaca, whose
    preamble depends on the input). For a model with its own template the input follows the instruction,
    after a blank line.
    """
    if any(turn["role"] == "tool" or "tools" in turn or "tool_calls" in turn for turn in conversation):
        raise UserError(
            "engine: endpoint sends no tools and no calls of them; load the model here instead (engine: batch)"
        )
    if prompt is None or not prompt.shows_input:
        return [plain(join_input(message)) for message in conversation]
    messages = list(conversation)
    for place, message in enumerate(conversation):
        if message.get("input"):
            wanted = prompt.render(messages, generation_prompt=True)
            hollow: Message = {"role": message["role"], "content": PLACEHOLDER}
            before, _, behind = prompt.render(
                [*messages[:place], hollow, *messages[place + 1 :]], generation_prompt=True
            ).partition(PLACEHOLDER)
            shown = wanted.removeprefix(before).removesuffix(behind)
            messages[place] = {"role": message["role"], "content": shown}
            if prompt.render(messages, generation_prompt=True) != wanted:
                raise UserError(
                    f"engine: endpoint cannot show a row's input as prompt {prompt.name!r} does: a chat message has no "
                    "field for it, and the rest of the prompt depends on it too; load the model here instead "
                    "(engine: batch)"
                )
    return [plain(message) for message in messages]


def plain(message: Message) -> dict[str, str]:
    return {"role": message["role"], "content": message["content"]}


async def ask_all(
    endpoint: Endpoint,
    asked: Sequence[list[dict[str, str]]],
    *,
    max_new_tokens: int,
    on_response: OnResponse,
    unknown: Counter[str],
) -> list[Response]:
    """`unknown` counts the finish reasons that are none of the protocol."""
    free = asyncio.Semaphore(endpoint.concurrency)
    async with Client(endpoint.server) as client:

        async def answer(index: int) -> Response:
            async with free:
                began = time.perf_counter()
                body = {
                    "model": endpoint.model,
                    "messages": asked[index],
                    "temperature": 0,
                    "max_tokens": max_new_tokens,
                }
                try:
                    completion = await client.complete(body)
                except NoReply as error:
                    raise UserError(f"{endpoint.base_url}, request {index}: {way_out(endpoint, error)}") from error
            if completion.finish_reason is None:
                unknown[str(completion.server_reason)] += 1
            response = Response(
                text=completion.text,
                finish_reason=completion.finish_reason,
                prompt_tokens=completion.prompt_tokens,
                response_tokens=completion.completion_tokens,
                seconds=time.perf_counter() - began,
            )
            on_response(index, response)
            return response

        tasks = [asyncio.create_task(answer(index)) for index in range(len(asked))]
        try:
            return list(await asyncio.gather(*tasks))
        finally:  # after an error or Ctrl-C nothing more is asked
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def way_out(endpoint: Endpoint, error: NoReply) -> str:
    """What went wrong, and what can be done."""
    tries = endpoint.max_retries + 1
    match error.kind:
        case "timeout":
            return f"no answer in {endpoint.timeout:g} s, {tries} times; allow more (timeout)"
        case "connection":
            return f"no connection ({error.detail}); is the server running, and base_url its address?"
        case "key":
            return f"the key was refused ({error.detail}); set the right one in the environment: {KEY}"
        case "missing":
            return f"nothing there under the model name {endpoint.model!r} ({error.detail}); correct it, or base_url"
        case "rate_limit":
            return f"too many requests, {tries} times ({error.detail}); ask fewer at once (concurrency), or later"
        case "server_error":
            return f"the server failed {tries} times ({error.detail}); its own log should say why"
        case "refused":
            return f"refused ({error.detail})"
    return error.detail
