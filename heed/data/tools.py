"""Tools that an assistant may call, and its calls: JSON objects, or the same as text, as OpenAI and TRL write them."""

import json
from typing import Any

from heed.data.fields import optional_text_problem, type_name
from heed.data.texts import TOO_DEEP, depth_problem


def read_tools(value: Any) -> tuple[list[Any], str | None]:
    """What tools there are, for a template to show; and what is wrong with them, or None."""
    if not value:
        return [], None
    tools, problem = parsed(value)
    if problem is None and (not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools)):
        problem = f"expected a list of tools, got {type_name(tools)}"
    problem = problem or texts_problem(tools)
    return ([], problem) if problem else (tools, None)


def read_calls(value: Any) -> tuple[list[Any], str | None]:
    """An assistant's calls, their arguments as an object, which is what templates expect; and what is wrong."""
    if not isinstance(value, list):
        return [], f"expected a list of calls, got {type_name(value)}"
    calls = []
    for number, call in enumerate(value, start=1):
        function = call.get("function", call) if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            return [], f"call {number} names no function"
        arguments, problem = parsed(function.get("arguments") or {})
        if problem or not isinstance(arguments, dict):
            return [], f"call {number}, 'arguments': {problem or f'expected an object, got {type_name(arguments)}'}"
        named = {"id": call["id"]} if isinstance(call.get("id"), str) else {}
        calls.append(named | {"type": "function", "function": {"name": function["name"], "arguments": arguments}})
    problem = texts_problem(calls)
    return ([], problem) if problem else (calls, None)


def texts_problem(value: Any) -> str | None:
    """What is wrong with a text anywhere in a value, or None."""
    return optional_text_problem(json.dumps(value, ensure_ascii=False, default=str))


def parsed(value: Any) -> tuple[Any, str | None]:
    if not isinstance(value, str):
        return value, None
    try:
        found = json.loads(value)
    except RecursionError:
        return None, TOO_DEEP
    except ValueError as error:
        return None, f"is no JSON ({error})"
    return found, depth_problem(found, value)
