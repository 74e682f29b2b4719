"""What a row of data means, before any tokenizer is involved. It is checked where it enters, and trusted afterwards."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NotRequired, TypedDict

from heed.files.hashes import json_sha256


class Message(TypedDict):
    """One turn of a conversation. `input` is the Alpaca input that goes with a user's instruction.

    What an assistant wrote with `weight` 0 is read and not learned; `reasoning_content` are its thoughts before it,
    `tool_calls` what it wants done after it. A tool says what came of a call. One turn may have the row's `tools`.
    """

    role: Literal["system", "user", "assistant", "tool"]
    content: str
    input: NotRequired[str]
    weight: NotRequired[int]
    reasoning_content: NotRequired[str]
    tool_calls: NotRequired[list[Any]]
    tools: NotRequired[list[Any]]
    name: NotRequired[str]
    tool_call_id: NotRequired[str]


def said(message: Message) -> str:
    """What is said in a turn, calls of tools among it as JSON."""
    calls = [json.dumps(call["function"], ensure_ascii=False) for call in message.get("tool_calls", ())]
    return "\n".join(filter(None, (message["content"], *calls)))


def asked(messages: Sequence[Message]) -> str:
    """All that is said in turns before an answer, without roles."""
    return "\n".join(text for turn in messages for text in (said(turn), turn.get("input")) if text)


def normalized(text: str) -> str:
    """Case and spacing make no difference."""
    return " ".join(text.casefold().split())


@dataclass(frozen=True, kw_only=True)
class Record:
    """One checked row: a conversation that ends with the assistant's answer."""

    row_id: int
    """Position in the source, counted from 0 over all of its rows, bad ones included."""
    place: str
    """Where a person finds the row: `file:line`, or `file, row n` where lines mean nothing."""
    messages: tuple[Message, ...]
    source_split: str | None = None
    """The split the source itself puts the row in, if it names one."""
    unused: tuple[tuple[str, str], ...] = field(default=(), compare=False)
    """What nobody read: the name of a field, and whether a row or a turn had it."""
    reference: str = field(default="", compare=False)
    """The answer as a template shows it, where that is known and differs from what is said: calls of tools."""

    @property
    def instruction(self) -> str:
        return self.messages[-2]["content"]

    @property
    def input(self) -> str:
        return self.messages[-2].get("input", "")

    @property
    def output(self) -> str:
        return self.reference or said(self.messages[-1])

    @property
    def system(self) -> str:
        return self.messages[0]["content"] if self.messages[0]["role"] == "system" else ""

    @property
    def history(self) -> list[Message]:
        """Turns before the instruction, without the system's."""
        return [message for message in self.messages[:-2] if message["role"] != "system"]

    @property
    def question(self) -> str:
        """All that comes before the answer, without roles."""
        return asked(self.messages[:-1])

    @cached_property
    def question_hash(self) -> str:
        """SHA-256 of what is asked, case and spacing aside, or of a row that asks nothing."""
        asked = normalized(self.question)
        return json_sha256(asked) if asked else self.content_hash

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 of the conversation alone: equal rows have equal hashes, wherever they are."""
        return json_sha256(self.messages)


@dataclass(frozen=True, kw_only=True)
class RawRow:
    """A row as it was read, not yet checked. `problem` is set if no row could be read there."""

    place: str
    value: Any
    source_split: str | None = None
    problem: str | None = None


@dataclass(frozen=True, kw_only=True)
class Rejected:
    """A row that was not used, and why; one line of rejected.jsonl."""

    row_id: int
    place: str
    reasons: list[str]
    value: Any


def rows_sha256(records: Iterable[Record]) -> str:
    """One hash over all conversations in order: changes when any row that is used changes."""
    digest = hashlib.sha256()
    for record in records:
        digest.update(record.content_hash.encode())
    return digest.hexdigest()


def learned_turns(messages: Sequence[Message]) -> list[int]:
    """The turns that the assistant wrote and that are to be learned."""
    return [
        turn
        for turn, message in enumerate(messages)
        if message["role"] == "assistant" and message.get("weight", 1) != 0
    ]
