"""Conversations that a template is tried on when it is loaded."""

from typing import Any

from heed.data.records import Message

PROBE_QUESTION, PROBE_INPUT, PROBE_ANSWER = "What is asked?", "A text to work on.", "This is answered."
PROBE: tuple[Message, ...] = (
    {"role": "user", "content": PROBE_QUESTION, "input": PROBE_INPUT},
    {"role": "assistant", "content": PROBE_ANSWER},
)
PLAIN_PROBE: tuple[Message, ...] = ({"role": "user", "content": PROBE_QUESTION}, PROBE[1])


TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": "Look up a word.",
        "parameters": {
            "type": "object",
            "properties": {"word": {"type": "string", "description": "A word."}},
            "required": ["word"],
        },
    },
}
CALL: Message = {  # some templates want an id of nine letters
    "role": "assistant",
    "content": "",
    "tool_calls": [
        {"id": "call00001", "type": "function", "function": {"name": "look_up", "arguments": {"word": "heed"}}}
    ],
}
RESULT: Message = {"role": "tool", "content": "It is to mind.", "name": "look_up", "tool_call_id": "call00001"}
ASKED: Message = {"role": "user", "content": PROBE_QUESTION}
# What a turn may carry beside its text -> a conversation with it, and what must be seen of that.
PROBES: dict[str, tuple[list[Message], tuple[str, ...]]] = {
    "reasoning_content": ([ASKED, {**PROBE[1], "reasoning_content": "A thought."}], ("A thought.",)),
    "tool_calls": ([ASKED, CALL], ("look_up", "heed")),
    "tool": ([ASKED, CALL, RESULT], ("It is to mind.",)),
    "tools": ([{**ASKED, "tools": [TOOL]}], ("look_up", "Look up a word.")),
}
OWN = "a chat model's own template may (prompt: model)"
# The same: its name in a message, and the way out where it is not shown.
MORE = {
    "reasoning_content": "reasoning_content; leave it out, or put it into content",
    "tool_calls": f"tool_calls; {OWN}",
    "tool": f"turns of a tool as such; {OWN}",
    "tools": f"tools; {OWN}",
}
