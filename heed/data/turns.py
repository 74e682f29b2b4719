"""The turns of a conversation, in OpenAI's words (role, content) or ShareGPT's (from, value)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from heed.data.fields import optional_text_problem, text_problem, type_name
from heed.data.records import Message
from heed.data.tools import read_calls, read_tools

# our word -> ShareGPT's
KEYS = {"role": "from", "content": "value"}
ROLES = {"human": "user", "gpt": "assistant", "chatgpt": "assistant", "model": "assistant"}
TOOLS = ("function", "function_call", "function_response", "observation", "tool_call", "tool_response")
KNOWN = {
    "system": ("role", "content", "tools"),
    "user": ("role", "content", "input", "tools"),
    "assistant": ("role", "content", "weight", "reasoning_content", "tool_calls"),
    "tool": ("role", "content", "name", "tool_call_id"),
}


def are_turns(value: Any) -> bool:
    """Whether a value is a list of turns: it may have mistakes, but is meant as a conversation."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(turn, dict) and all(ours in turn or KEYS[ours] in turn for ours in KEYS) for turn in value)
    )


def read_turns(turns: Sequence[Any], messages: list[Message]) -> str | None:
    """Add turns to a conversation: a system turn first, then user and assistant alternately.

    Returns what is wrong with the first bad one, beginning with its number; or None.
    """
    for number, turn in enumerate(turns, start=1):
        if not isinstance(turn, dict):
            return f"turn {number}: expected an object, got {type_name(turn)}"
        if problem := read_turn(in_our_words(turn), messages):
            return f"turn {number}{problem}"
    return None


def read_turn(turn: Mapping[str, Any], messages: list[Message]) -> str | None:
    role, expected = turn.get("role"), expected_roles(messages)
    if role in TOOLS:
        return f": role is {role!r}, which is not understood; write calls as tool_calls and their results as role tool"
    if role not in expected:
        return f": role is {role!r}, expected {' or '.join(expected)}"
    content, problem = joined(turn.get("content"))
    says_more = role == "tool" or (role == "assistant" and turn.get("tool_calls"))
    if problem := problem or (optional_text_problem if says_more else text_problem)(content):
        return f", 'content': {problem}"
    if turn.get("function_call"):
        return ", 'function_call': write it as tool_calls"
    message: Message = {"role": role, "content": content or ""}
    if problem := read_tool_fields(turn, message):
        return f", {problem}"
    if role == "assistant" and (problem := read_extras(turn, message)):
        return f", {problem}"
    if role == "user" and turn.get("input"):
        if problem := optional_text_problem(turn["input"]):
            return f", 'input': {problem}"
        message["input"] = turn["input"]
    messages.append(message)
    return None


def read_tool_fields(turn: Mapping[str, Any], message: Message) -> str | None:
    """Put what a turn says of tools into `message`; what is wrong with it, or None."""
    role, problem = message["role"], None
    if role == "assistant" and turn.get("tool_calls"):
        message["tool_calls"], problem = read_calls(turn["tool_calls"])
        name = "tool_calls"
    elif role in ("system", "user") and turn.get("tools"):
        message["tools"], problem = read_tools(turn["tools"])
        name = "tools"
    elif role == "tool":
        for name in ("name", "tool_call_id"):
            if turn.get(name) and (problem := optional_text_problem(turn[name])):
                break
            if turn.get(name):
                message[name] = turn[name]  # type: ignore[literal-required]
    return f"{name!r}: {problem}" if problem else None


def in_our_words(turn: Mapping[str, Any]) -> Mapping[str, Any]:
    """ShareGPT's keys and roles as ours. Merged data sets have both, one of them null."""
    theirs = [ours for ours in KEYS if turn.get(ours) is None and KEYS[ours] in turn]
    if theirs:
        others = {name: value for name, value in turn.items() if name not in [KEYS[ours] for ours in theirs]}
        turn = others | {ours: turn[KEYS[ours]] for ours in theirs}
    role = turn.get("role")
    return {**turn, "role": ROLES[role]} if isinstance(role, str) and role in ROLES else turn


def joined(content: Any) -> tuple[Any, str | None]:
    """A content in parts as one text, the parts unchanged; and what is wrong with a part that is not text."""
    if not isinstance(content, list):
        return content, None
    texts = []
    for number, part in enumerate(content, start=1):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind != "text":
            what = type_name(part) if kind is None else f"type {kind!r}"
            return None, f"part {number} is {what}; only parts of type 'text' are read"
        if problem := optional_text_problem(part.get("text", "")):
            return None, f"part {number}: {problem}"
        texts.append(part.get("text") or "")
    return "".join(texts), None


def read_extras(turn: Mapping[str, Any], message: Message) -> str | None:
    """Put what an assistant's turn has besides its text into `message`; what is wrong with it, or None."""
    weight = turn.get("weight")
    if weight is not None and (isinstance(weight, bool) or weight not in (0, 1)):
        return f"'weight': expected 0 or 1, got {weight!r}"
    if weight == 0:
        message["weight"] = 0
    if turn.get("reasoning_content"):
        if problem := optional_text_problem(turn["reasoning_content"]):
            return f"'reasoning_content': {problem}"
        message["reasoning_content"] = turn["reasoning_content"]
    return None


def expected_roles(messages: Sequence[Message]) -> tuple[str, ...]:
    if not messages:
        return ("system", "user")
    last = messages[-1]
    if last["role"] == "tool":
        return ("tool", "assistant")
    if last.get("tool_calls"):
        return ("tool",)
    return ("assistant",) if last["role"] == "user" else ("user",)


def unused_fields(turns: Sequence[Any]) -> Iterator[str]:
    """Names of what turns have and nobody reads, once for each turn."""
    for turn in turns:
        if isinstance(turn, dict):
            turn = in_our_words(turn)
            known = KNOWN.get(str(turn.get("role")), ())
            yield from (name for name, item in turn.items() if name not in known and item not in (None, "", [], {}))


def translated(turns: Sequence[Any]) -> list[str]:
    """Which words of these turns are not ours, for a person."""
    turns = [cast("dict[str, Any]", turn) for turn in turns]
    keys = [
        f"{theirs} as {ours}"
        for ours, theirs in KEYS.items()
        if any(turn.get(ours) is None and theirs in turn for turn in turns)
    ]
    words = dict.fromkeys(turn.get("role") or turn.get("from") for turn in turns)
    roles = [f"{word} as {ROLES[word]}" for word in words if word in ROLES]
    parts = any(isinstance(turn.get("content", turn.get("value")), list) for turn in turns)
    return keys + roles + (["parts of a content joined"] if parts else [])
