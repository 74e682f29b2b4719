"""Tools, calls of them and what they say are shown by templates that can show them, and refused by name by others."""

import json
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from heed.answers.endpoint import chat_messages
from heed.data.records import RawRow, Record
from heed.data.rows import check_rows
from heed.errors import UserError
from heed.evaluation.asking import with_reference
from heed.prompts.template import Prompt, load_prompt, make_prompt
from heed.tokens.encoding import Policy, encode_row

# As Qwen writes them, in short.
TOOL_TEMPLATE = (
    "{% if tools %}{{ 'tools: ' + tools | tojson + '\n' }}{% endif %}{% for m in messages %}"
    "{% if m.role == 'tool' %}{{ 'user:<result>' + m.content + '</result>\n' }}"
    "{% elif m.tool_calls %}{{ 'assistant:' + m.content }}{% for call in m.tool_calls %}"
    "{{ '<call>' + call.function.name + ' ' + call.function.arguments | tojson + '</call>' }}{% endfor %}"
    "{{ eos_token + '\n' }}"
    "{% else %}{{ m.role + ':' + m.content + (eos_token if m.role == 'assistant' else '') + '\n' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
)
EOS = "<|endoftext|>"
TOOLS = [{"type": "function", "function": {"name": "add", "description": "Add.", "parameters": {}}}]
CALL = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "add", "arguments": '{"a": 1}'}}]}
TURNS = [
    {"role": "user", "content": "Add."},
    CALL,
    {"role": "tool", "content": f"2 {EOS}", "name": "add"},
    {"role": "assistant", "content": "It is 2."},
]
POLICY = Policy(max_length=256, on_long_row="error", loss_on="response")


def record(turns: list[Any], **more: Any) -> Record:
    [found] = check_rows(
        [RawRow(place="calls.jsonl:1", value={"messages": turns} | more)], source="calls", columns={}, on_bad_row="stop"
    ).records
    return found


@pytest.fixture
def prompt(tokenizer: PreTrainedTokenizerBase) -> Prompt:
    return make_prompt("own", TOOL_TEMPLATE, tokenizer)


def test_a_call_is_learned_and_what_the_tool_says_is_read(prompt: Prompt) -> None:
    [found] = encode_row(record(TURNS, tools=json.dumps(TOOLS)), prompt, POLICY)
    decode = prompt.tokenizer.decode
    assert decode(found["input_ids"]) == (
        'tools: [{"type": "function", "function": {"name": "add", "description": "Add.", "parameters": {}}}]\n'
        f'user:Add.\nassistant:<call>add {{"a": 1}}</call>{EOS}\nuser:<result>2 {EOS}</result>\nassistant:It is 2.{EOS}'
    )
    learned = [decode(found["input_ids"][start:end]) for start, end in found["spans"]]
    assert learned == [f'<call>add {{"a": 1}}</call>{EOS}', f"It is 2.{EOS}"]
    assert found["input_ids"].count(prompt.eos_token_id) == 2  # what a tool said is text


def test_a_control_token_in_an_argument_is_text(prompt: Prompt) -> None:
    call = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "say", "arguments": {"a": EOS}}}]}
    [found] = encode_row(record([TURNS[0], call]), prompt, POLICY)
    assert f'say {{"a": "{EOS}"}}' in prompt.tokenizer.decode(found["input_ids"])
    assert found["input_ids"].count(prompt.eos_token_id) == 1


@pytest.mark.parametrize(
    ("style", "turns", "more", "refused"),
    [
        ("alpaca", TURNS[:2], {}, "tool_calls"),
        ("alpaca", TURNS[:1] + TURNS[3:], {"tools": TOOLS}, "tools"),
        ("chatml", TURNS, {}, "tool_calls"),
        ("question", [*TURNS[:1], TURNS[3], *TURNS[:1], TURNS[3]], {"tools": TOOLS}, "tools"),
    ],
)
def test_what_a_template_does_not_show_is_refused_by_name(
    tokenizer: PreTrainedTokenizerBase, style: str, turns: list[Any], more: dict[str, Any], refused: str
) -> None:
    with pytest.raises(UserError, match=f"calls.jsonl:1: prompt '{style}' does not show {refused}; a chat model's own"):
        encode_row(record(turns, **more), load_prompt(style, tokenizer), POLICY)


def test_what_a_tool_says_is_not_shown_where_it_looks_like_another_turn(
    tokenizer: PreTrainedTokenizerBase, prompt: Prompt
) -> None:
    assert prompt.shown == {"tool_calls", "tool", "tools"}
    assert load_prompt("alpaca", tokenizer).shown == set()  # it would stand there as a response
    assert load_prompt("chatml", tokenizer).shown == {"tool"}


def test_the_reference_of_a_call_is_what_a_model_would_write(prompt: Prompt) -> None:
    row = record(TURNS[:2])
    assert row.output == '{"name": "add", "arguments": {"a": 1}}'
    assert with_reference(row, prompt).output == '<call>add {"a": 1}</call>'
    assert with_reference(record(TURNS), prompt).output == "It is 2."


def test_a_server_is_not_asked_without_the_tools(prompt: Prompt) -> None:
    with pytest.raises(UserError, match="engine: endpoint sends no tools and no calls of them"):
        chat_messages(record(TURNS, tools=TOOLS).messages, prompt)


@pytest.mark.parametrize(
    ("turns", "more", "problem"),
    [
        (
            [TURNS[0], {**CALL, "tool_calls": [{"type": "function"}]}],
            {},
            "turn 2, 'tool_calls': call 1 names no function",
        ),
        (
            [TURNS[0], {**CALL, "tool_calls": [{"name": "add", "arguments": "{oops"}]}],
            {},
            "turn 2, 'tool_calls': call 1, 'arguments': is no JSON",
        ),
        ([TURNS[0], CALL, TURNS[0]], {}, "turn 3: role is 'user', expected tool"),
        ([TURNS[0], TURNS[2]], {}, "turn 2: role is 'tool', expected assistant"),
        (TURNS, {"tools": '{"name": "add"}'}, "field 'tools': expected a list of tools, got an object"),
        (TURNS, {"tools": "[" * 100_000}, "field 'tools': not JSON: too many brackets within brackets"),
        (TURNS, {"tools": "[" * 200 + "]" * 200}, "field 'tools': not JSON: too many brackets within brackets"),
        (TURNS, {"tools": r'[{"name": "\ud83d"}]'}, "field 'tools': contains half of a surrogate pair"),
        (TURNS, {"tools": [{"name": "\ud83d"}]}, "field 'tools': contains half of a surrogate pair"),
        (
            [TURNS[0], {**CALL, "tool_calls": [{"name": "add", "arguments": {"a": ["\ud83d"]}}]}],
            {},
            "turn 2, 'tool_calls': contains half of a surrogate pair",
        ),
        (
            [TURNS[0], {**CALL, "tool_calls": [{"name": "add", "arguments": '{"a":' * 100_000}]}],
            {},
            "turn 2, 'tool_calls': call 1, 'arguments': not JSON: too many brackets within brackets",
        ),
    ],
)
def test_calls_and_tools_that_cannot_be_read_are_named(turns: list[Any], more: dict[str, Any], problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        record(turns, **more)
