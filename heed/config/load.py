"""How a script begins: its help, its keys as they were set, a table of them, or the keys as its dataclass."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic

from heed.config.conditions import refuse_unread
from heed.config.keys import Script, explain, field_types, help_text, resolved_values, script_config
from heed.config.reader import parse_command_line, read_settings
from heed.config.settings import Setting, Settings


@dataclass(frozen=True, kw_only=True)
class Loaded(Generic[Script]):
    config: Script
    settings: Settings
    verbose: bool


def asks_for_help(arguments: Sequence[str]) -> bool:
    return "--help" in arguments or "-h" in arguments


def searched_word(arguments: Sequence[str]) -> str:
    """The word after --help: only keys that have it are shown."""
    asked = next(place for place, word in enumerate(arguments) if word in ("--help", "-h"))
    return arguments[asked + 1] if asked + 1 < len(arguments) else ""


def load(
    schema: type[Script],
    arguments: Sequence[str],
    *,
    doc: str | None,
    flags: Sequence[str] = ("explain",),
    word: str | None = None,
    follows: Settings | None = None,
    more: str = "",
) -> Loaded[Script] | None:
    """The keys of a script, each with its source; None where the answer was help or a table, which is printed.

    `word` is the one after the script's name, and `follows` are keys that it has set. Raises UserError for keys that
    are unknown, wrong, missing or without effect.
    """
    if asks_for_help(arguments):
        print(help_text(schema, doc or "", more=more, word=searched_word(arguments)))
        return None
    line = parse_command_line(arguments, flags=flags)
    settings: dict[str, Setting] = (follows or {}) | read_settings(line, field_types(schema))
    ours = script_config(schema, settings)
    if line.explain:
        print(explain(resolved_values(ours, settings)))
        return None
    refuse_unread(schema, settings, word)
    return Loaded(config=ours, settings=settings, verbose=line.verbose)
