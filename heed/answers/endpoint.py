"""Greedy answers from a server that speaks OpenAI's chat completions: the prompts go as messages, not as ids.

The server renders the messages with its own chat template, cuts them to its own context, stops at its own stop ids and
adds whatever its own generation_config says (a repetition penalty, for one); it is asked for temperature 0 and a number
of tokens, and for nothing else. A model that Heed has trained brings template and stop ids to a server, so that
`transformers serve` answers as the local engines do (tested).
"""

import asyncio
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import openai

from heed.answers.partial import OnResponse, Response
from heed.data.records import Message
from heed.errors import UserError
from heed.files.run_folder import writable
from heed.prompts.template import Prompt, join_input
from heed.saying import Say
from heed.servers.addresses import check_address, is_loopback

TOKEN = "OPENAI_API_KEY"
PLACEHOLDER = "\ue000"  # stands for a user's words while it is found out what the template writes around them


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """A server, and how it is asked."""

    base_url: str
    """As the SDK wants it, mostly ending in /v1."""
    model: str
    concurrency: int = 4
    """Requests under way at once."""
    timeout: float = 120.0
    """Seconds for one request."""
    max_retries: int = 5
    """After 408, 409, 429, 5xx, a time-out or a lost connection, with growing pauses between (the SDK's)."""

    def __post_init__(self) -> None:
        check_address(self.base_url, key="base_url", token=TOKEN)
        if self.concurrency < 1:
            raise UserError(f"concurrency: {self.concurrency} asks nothing; give 1 or more")
        if self.timeout <= 0:
            raise UserError(f"timeout: {self.timeout:g} seconds leave no time to answer")

    @property
    def token(self) -> str:
        """From the environment alone; a server on this machine that wants none gets a placeholder."""
        if token := os.environ.get(TOKEN):
            return token
        if is_loopback(self.base_url):
            return "none"
        raise UserError(f"base_url: {self.base_url} wants a token; set it in the environment: export {TOKEN}=...")


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

    `prompt` is the contract of the model that the server runs, or None for a model with a chat template of its own;
    `chat_messages` says what it is for. `seconds` is the request's own time; requests overlap. Stop reason and token
    counts are the server's. Raises UserError when the server cannot be reached or refuses, naming row and way out;
    what was answered before has been given to `on_response`.
    """
    asked = [chat_messages(conversation, prompt) for conversation in conversations]
    if prompt is not None:
        marked = [any(prompt.control_tokens.search(each["content"]) for each in messages) for messages in asked]
        if any(marked):
            say(f"{sum(marked)} rows hold control tokens typed by their authors; a server may not take them for text")
    responses = asyncio.run(
        ask_all(endpoint, asked, token=endpoint.token, max_new_tokens=max_new_tokens, on_response=on_response)
    )
    filtered = sum(response.finish_reason == "content_filter" for response in responses)
    if filtered:
        say(f"{filtered} answers were cut by the server's content filter")
    return responses


def chat_messages(conversation: Sequence[Message], prompt: Prompt | None) -> list[dict[str, str]]:
    """The messages to send: `role` and `content`, since servers drop or refuse any other field, such as `input`.

    For a model trained with `prompt`, a row's input is written into the content just as the template would show it, so
    that the server renders the very text of training; a template that cannot be met so is refused (alpaca, whose
    preamble depends on the input). For a model with a template of its own the input stands behind the instruction,
    after a blank line.
    """
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
    token: str,
    max_new_tokens: int,
    on_response: OnResponse,
) -> list[Response]:
    free = asyncio.Semaphore(endpoint.concurrency)
    async with openai.AsyncOpenAI(
        base_url=endpoint.base_url,
        api_key=token,
        timeout=endpoint.timeout,
        max_retries=endpoint.max_retries,
        # A proxy cannot reach this machine.
        http_client=openai.DefaultAsyncHttpxClient(trust_env=not is_loopback(endpoint.base_url)),
    ) as client:

        async def answer(index: int) -> Response:
            async with free:
                began = time.perf_counter()
                try:
                    completion = await client.chat.completions.create(
                        model=endpoint.model,
                        messages=cast(Any, asked[index]),
                        temperature=0,
                        max_tokens=max_new_tokens,
                    )
                except openai.OpenAIError as error:
                    raise UserError(refusal(endpoint, index, error).replace(token, f"${TOKEN}")) from error
            response = response_from(endpoint, completion, seconds=time.perf_counter() - began)
            on_response(index, response)
            return response

        tasks = [asyncio.create_task(answer(index)) for index in range(len(asked))]
        try:
            return list(await asyncio.gather(*tasks))
        finally:  # after an error or Ctrl-C nothing more is asked
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def response_from(endpoint: Endpoint, completion: Any, *, seconds: float) -> Response:
    choices = getattr(completion, "choices", None)
    if not choices or choices[0].message is None:
        raise UserError(f"{endpoint.base_url} did not answer as a chat completion ({str(completion)[:200]!r})")
    reason = choices[0].finish_reason
    if reason not in ("stop", "length", "content_filter"):
        raise UserError(f"{endpoint.base_url} ended an answer with {reason!r}; stop or length was expected")
    usage = completion.usage
    return Response(
        text=writable(choices[0].message.content or ""),
        finish_reason=reason,
        prompt_tokens=usage.prompt_tokens if usage else None,
        response_tokens=usage.completion_tokens if usage else None,
        seconds=seconds,
    )


def refusal(endpoint: Endpoint, index: int, error: openai.OpenAIError) -> str:
    """What went wrong, where, and what can be done."""
    place = f"{endpoint.base_url}, request {index}"
    if isinstance(error, openai.APITimeoutError):
        return f"{place}: no answer in {endpoint.timeout:g} s, {endpoint.max_retries + 1} times; allow more (timeout)"
    if isinstance(error, openai.APIConnectionError):
        return f"{place}: no connection ({error.__cause__ or error}); is the server running, and base_url its address?"
    if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
        return f"{place}: the token was refused ({said(error)}); set the right one in the environment: {TOKEN}"
    if isinstance(error, openai.NotFoundError):
        return f"{place}: nothing there under the model name {endpoint.model!r} ({said(error)}); mend it, or base_url"
    if isinstance(error, openai.RateLimitError):
        tries = endpoint.max_retries + 1
        return f"{place}: too many requests, {tries} times ({said(error)}); ask fewer at once (concurrency), or later"
    if isinstance(error, openai.InternalServerError):
        return f"{place}: the server failed {endpoint.max_retries + 1} times ({said(error)}); its own log knows why"
    if isinstance(error, openai.APIStatusError):
        return f"{place}: refused ({said(error)})"
    return f"{place}: {error}"


def said(error: openai.APIStatusError) -> str:
    """The status and what the server says; it may echo the token, which the caller takes out."""
    body: Any = error.body
    message = body.get("message", body) if isinstance(body, dict) else body or error.message
    return f"{error.status_code}: {str(message)[:300]}"
