"""What a key of a script is: its type, help, default and condition, and how all of it is shown."""

import dataclasses
import json
import typing
from collections.abc import Mapping, Sequence
from dataclasses import field
from types import MappingProxyType
from typing import Any, TypeVar

from heed.config import elsewhere
from heed.config.conditions import AnyOf, Condition
from heed.config.conversion import all_choices
from heed.config.settings import Setting, Settings
from heed.errors import UserError


def key(
    default: Any = dataclasses.MISSING, *, help: str, read_when: Condition | AnyOf | Sequence[Condition | AnyOf] = ()
) -> Any:
    """A configuration key. `read_when` says what must be set for the key to have an effect."""
    needs = (read_when,) if isinstance(read_when, Condition | AnyOf) else tuple(read_when)
    metadata = {"help": help, "read_when": needs}
    if isinstance(default, dict | list):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)


Script = TypeVar("Script")


def field_types(schema: type) -> dict[str, Any]:
    hints = typing.get_type_hints(schema)
    return {item.name: hints[item.name] for item in dataclasses.fields(schema) if item.init}


def script_config(schema: type[Script], settings: Settings) -> Script:
    """The script's own keys as its dataclass. Raises UserError naming a required key that is missing."""
    values = {name: setting.value for name, setting in settings.items() if name in field_types(schema)}
    for item in dataclasses.fields(schema):  # type: ignore[arg-type]
        required = item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
        if required and item.name not in values:
            raise UserError(f"{item.name} is missing ({item.metadata['help']}); set it in --config or as --{item.name}")
    return schema(**values)


def resolved_values(config: Any, settings: Settings) -> Settings:
    """Every key of the script with its value and source."""
    return {name: settings.get(name) or Setting(value=value, source="default") for name, value in vars(config).items()}


def explain(settings: Settings) -> str:
    """A table of every value and its source: what the user set first, then Heed's defaults, then the rest."""
    order = {"Heed's default": 1, "default": 2}
    rows = sorted(settings.items(), key=lambda item: order.get(item[1].source, 0))
    width = max(len(name) for name in settings)
    values = {name: json.dumps(setting.value, default=str) for name, setting in rows}
    column = min(40, max(len(text) for text in values.values()))
    return "\n".join(f"{name:<{width}}  {values[name]:<{column}}  {setting.source}" for name, setting in rows)


def default_text(item: dataclasses.Field[Any]) -> str:
    """The value of a key that is not set, as JSON."""
    factory = item.default_factory
    default = item.default if factory is dataclasses.MISSING else factory()
    return "required" if default is dataclasses.MISSING else json.dumps(default)


def help_text(
    schema: type,
    script_doc: str,
    *,
    more: str = "",
    word: str = "",
    groups: Mapping[str, str] = MappingProxyType({}),
    beginners: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """What --help prints: the script's own words, then each key with its help, the values it may have, and default.

    With a `word` only the keys whose name or help has it. `groups` are titles by the first key that each stands above,
    `beginners` the keys to begin with, with the help of those that are not in the schema.
    """
    lines = [] if word else [script_doc.strip(), "", "Keys (in the YAML file, or as --key value):"]
    if beginners and not word:
        lines[-1] += " * marks those to begin with; --help WORD shows the keys about a word"
        lines += [f"* --{name:<26} {said}" for name, said in beginners.items() if said]
    wanted = field_types(schema)
    for item in dataclasses.fields(schema):
        if word.lower() not in f"{item.name} {item.metadata['help']}".lower():
            continue
        if item.name in groups and not word:
            lines += ["", f"{groups[item.name]}:"]
        shown = default_text(item)
        shown = shown if shown == "required" else f"default {shown}"
        if choices := all_choices(wanted[item.name]):
            shown = f"{' | '.join(choices)}; {shown}"
        mark = "*" if item.name in beginners else " "
        lines.append(f"{mark} --{item.name:<26} {item.metadata['help']} ({shown})")
    if not lines:
        known = elsewhere.answer(word) or "--help shows all"
        lines = [f"no key of this script has {word!r} in its name or help; {known}"]
    return "\n".join(lines + ([more] if more else []))
