"""A conversation as a template's text, within bounds of time and memory."""

import multiprocessing
import os
import resource
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from heed.data.records import Message
from heed.errors import UserError

if TYPE_CHECKING:  # heavy, and only named here
    from transformers import PreTrainedTokenizerBase

RENDER_SECONDS, RENDER_BYTES, RENDER_CHARACTERS = 5, 2**29, 1_000_000  # what a template may take for a short chat
harmless: set[str] = set()  # templates that have been rendered in this process before


def refuse_bomb(tokenizer: "PreTrainedTokenizerBase", template: str, messages: Sequence[Message], name: str) -> None:
    """Render once in a separate process, with little time and memory: Jinja's sandbox bounds neither.

    Raises UserError when the template needs more of them than any prompt could.
    """
    if sys.platform != "linux" or template in harmless:
        return

    def attempt() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (RENDER_SECONDS, RENDER_SECONDS))
        held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        limit, most = held + RENDER_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]
        if most != resource.RLIM_INFINITY:  # no process may raise the machine's own limit
            limit = min(limit, most)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        try:
            too_long = len(render(tokenizer, template, messages, False, name)) > RENDER_CHARACTERS
        except UserError:  # the laws say it better
            too_long = False
        except MemoryError:
            too_long = True
        os._exit(int(too_long))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # about forking with threads: only Jinja runs in there
        child = multiprocessing.get_context("fork").Process(target=attempt)
        child.start()
    child.join(4 * RENDER_SECONDS)
    if child.is_alive():
        child.kill()
        child.join()
    if child.exitcode != 0:
        raise UserError(
            f"prompt {name!r}: a template must render two short messages within {RENDER_SECONDS} s, "
            f"{RENDER_BYTES >> 20} MiB and {RENDER_CHARACTERS:,} characters; this one does not"
        )
    harmless.add(template)


PLAIN = frozenset(("role", "content", "input"))
Render = Callable[[list[Message], bool], str]


def text_renderer(tokenizer: "PreTrainedTokenizerBase", template: str) -> Render:
    """`render` for turns of nothing but PLAIN texts: the template alone, past what transformers does for tools,
    documents and thoughts, which takes as long."""
    from transformers.utils.chat_template_utils import _compile_jinja_template

    compiled = _compile_jinja_template(template)
    given = {**tokenizer.special_tokens_map, "tools": None, "documents": None}

    def render_texts(messages: list[Message], generation_prompt: bool) -> str:
        return str(compiled.render(messages=messages, add_generation_prompt=generation_prompt, **given))

    return render_texts


def render(
    tokenizer: "PreTrainedTokenizerBase",
    template: str,
    messages: Sequence[Message],
    generation_prompt: bool,
    name: str = "",
) -> str:
    from jinja2 import TemplateError

    tools = next((message["tools"] for message in messages if "tools" in message), None)
    turns = [{name: value for name, value in message.items() if name != "tools"} for message in messages]
    try:
        return str(
            tokenizer.apply_chat_template(
                cast("list[dict[str, str]]", turns),
                tools=tools,
                chat_template=template,
                tokenize=False,
                add_generation_prompt=generation_prompt,
            )
        )
    except (TemplateError, TypeError) as error:
        roles = ", ".join(message["role"] for message in messages)
        raise UserError(f"prompt {name!r}: cannot render a conversation of {roles}: {error}") from error
