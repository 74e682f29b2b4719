"""Text from a file or the command line as the type that its key wants."""

import difflib
import enum
import types
import typing
from typing import Any, Literal

from heed.config.notation import NotYaml, free_value, number, parse
from heed.errors import UserError

POSSIBLE = {
    "data": "one path, or one for each split as {train: a.csv, test: b.csv}; several files go into one folder",
    "data.validation": "one path, or several with names, as {near: a.csv, far: b.csv}; the first steers",
    "columns": "our names with yours, as {instruction: question, output: answer}",
    "split_shares": "the shares of train, test and validation, as [0.85, 0.1, 0.05]",
    "source_splits": "our splits with the source's, as {validation: test}",
    "mixture": "files with how often their rows count, as {web.jsonl: 0.5}",
    "init_lora_weights": "true, false, gaussian or orthogonal; the others rewrite the base's weights, so that the "
    "adapter is wrong on the base itself, or read data first",
    "audit": "findings with the share of rows they may have, as {near_duplicate: 0.1}",
}
"""Where what is possible says more than a type."""


def convert(value: Any, wanted: Any, place: str) -> Any:
    """`value` (text, list, mapping or None) as the type `wanted`. Raises UserError naming the place and the value."""
    options = options_of(wanted)
    if value is None or value == "null":
        if type(None) in options or Any in options:
            return None
        raise UserError(f"{place}: may not be null; expected {type_text(wanted)}")
    options = meant_options(options, value)
    # Text always fits `str`, so it is tried last.
    for option in sorted(options, key=lambda option: option is str):
        try:
            return convert_to(value, option, place)
        except UserError:
            raise
        except NotYaml as error:
            raise UserError(f"{place}: {error}") from error
        except (ValueError, TypeError):
            continue
    possible = POSSIBLE.get(place.split()[-1].lstrip("-"))
    if possible is None and (choices := all_choices(wanted)):
        nearest = difflib.get_close_matches(str(value), choices, n=1)
        hint = f"; did you mean {nearest[0]}?" if nearest else ""
        raise UserError(f"{place}: {value!r} is not one of {', '.join(choices)}{hint}")
    raise UserError(f"{place}: {value!r} is not {possible or type_text(wanted)}")


def meant_options(options: tuple[Any, ...], value: Any) -> tuple[Any, ...]:
    """transformers types its choices `SchedulerType | str`; and plain text is text before it is a list of one."""
    if any(is_enum(option) for option in options):
        return tuple(option for option in options if option is not str)
    if str in options and isinstance(value, str) and not value.startswith(("[", "{")):
        return tuple(option for option in options if (typing.get_origin(option) or option) not in (list, dict))
    return options


def is_enum(option: Any) -> bool:
    return isinstance(option, type) and issubclass(option, enum.Enum)


def options_of(wanted: Any) -> tuple[Any, ...]:
    return typing.get_args(wanted) if is_union(wanted) else (wanted,)


def all_choices(wanted: Any) -> list[str]:
    """The values of a key that allows only a few, without null."""
    return [choice for option in options_of(wanted) for choice in choices_of(option)]


def choices_of(option: Any) -> list[str]:
    if is_enum(option):
        return [str(member.value) for member in option]
    return [str(choice) for choice in typing.get_args(option)] if typing.get_origin(option) is Literal else []


def is_union(wanted: Any) -> bool:
    return typing.get_origin(wanted) in (typing.Union, types.UnionType)


TRUE, FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


def convert_to(value: Any, wanted: Any, place: str) -> Any:
    """`value` as exactly `wanted`, or ValueError."""
    origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
    if wanted is type(None):
        raise ValueError
    if origin in (list, tuple) or wanted in (list, tuple):
        items = split_list(value) if isinstance(value, str) else value
        if not isinstance(items, list):
            raise ValueError
        return [convert(item, arguments[0] if arguments else str, place) for item in items]
    if origin is dict or wanted is dict:
        mapping = parse(value) if isinstance(value, str) else value
        if not isinstance(mapping, dict):
            raise ValueError
        item_type = arguments[1] if arguments else Any
        return {str(name): convert(item, item_type, f"{place}.{name}") for name, item in mapping.items()}
    if wanted is Any:
        return free_value(parse(value) if isinstance(value, str) and value.startswith(("[", "{")) else value)
    if not isinstance(value, str):
        raise ValueError
    if origin is Literal:
        return next(choice for choice in arguments if str(choice) == value) if value in map(str, arguments) else fail()
    if is_enum(wanted):
        return wanted(value).value
    if wanted is bool:
        return True if value.lower() in TRUE else False if value.lower() in FALSE else fail()
    if wanted is int:
        whole = number(value)
        return int(whole) if whole.is_integer() else fail()
    if wanted is float:
        return number(value)
    if wanted is str:
        return str(value)
    raise ValueError


def fail() -> Any:
    raise ValueError


def split_list(text: str) -> list[Any]:
    return parse(text) if text.startswith("[") else [item.strip() for item in text.split(",")]


def type_text(wanted: Any) -> str:
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "null"}
    if is_union(wanted):
        return " or ".join(type_text(option) for option in typing.get_args(wanted))
    if typing.get_origin(wanted) is Literal:
        return "one of " + ", ".join(map(str, typing.get_args(wanted)))
    origin = typing.get_origin(wanted) or wanted
    return names.get(origin) or {list: "a list", dict: "a mapping {key: value}"}.get(origin, str(wanted))
