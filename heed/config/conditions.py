"""When a key has an effect: conditions on other keys, and the refusal of a key that was set and would do nothing."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from heed.config.settings import Setting, Settings
from heed.errors import UserError

WORD = "word"  # for the word after the script's name, as in `eval_responses.py judge`


@dataclass(frozen=True, kw_only=True)
class Condition:
    """`key` is set; or it is one of `values`, or other than each of `is_not`. One item of a list is enough."""

    key: str
    values: tuple[Any, ...] = ()
    is_not: tuple[Any, ...] = ()

    @property
    def keys(self) -> tuple[str, ...]:
        return (self.key,)

    def holds(self, found: Mapping[str, Any]) -> bool:
        value = found.get(self.key)
        each = value if isinstance(value, list) else [getattr(value, "value", value)]
        if self.values:
            return any(item in self.values for item in each)
        if self.is_not:
            return any(item not in self.is_not for item in each)
        return bool(value)

    def __str__(self) -> str:
        if self.key == WORD:
            return f"the word {alternatives([value for value in self.values if value is not None])}"
        if self.values:
            return f"{self.key}: {alternatives(self.values)}"
        return f"{self.key} other than {alternatives(self.is_not)}" if self.is_not else self.key


@dataclass(frozen=True)
class AnyOf:
    """One of several conditions is enough."""

    conditions: tuple[Condition, ...]

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(each.key for each in self.conditions)

    def holds(self, found: Mapping[str, Any]) -> bool:
        return any(each.holds(found) for each in self.conditions)

    def __str__(self) -> str:
        return alternatives(self.conditions)


Needs = tuple[Condition | AnyOf, ...]
"""All of them must be true."""


def when(key: str, *values: Any, is_not: Any = ()) -> Condition:
    """`when("data")`: it is set; `when("use_peft", True)`; `when("eval_strategy", is_not="no")`."""
    return Condition(key=key, values=values, is_not=is_not if isinstance(is_not, tuple) else (is_not,))


def either(*conditions: Condition) -> AnyOf:
    return AnyOf(conditions)


def alternatives(values: Any) -> str:
    shown = [{True: "true", False: "false", None: "null"}.get(each, str(each)) for each in values]
    return " or ".join([*([", ".join(shown[:-1])] if shown[1:] else []), shown[-1]])


def needs_text(needs: Needs) -> str:
    return ", ".join(map(str, needs))


def refuse_unread(schema: type, settings: Settings, word: str | None = None) -> None:
    """Raises UserError for a key that the user set and whose condition is not true: it would silently do nothing.

    A key of the file passes when the command line has just changed its condition (`--use_peft false`): that was meant.
    A file describes all that a script does, so a `word`, which does a part of it, need not read every key of the file.
    """
    found: dict[str, Any] = {WORD: word}
    for item in dataclasses.fields(schema):
        default = item.default_factory() if item.default_factory is not dataclasses.MISSING else item.default
        found[item.name] = None if default is dataclasses.MISSING else default
    found |= {name: setting.value for name, setting in settings.items()}
    for item in dataclasses.fields(schema):
        setting = settings.get(item.name)
        if setting is None or not setting.set_by_user or (word is not None and setting.rank == 1):
            continue
        missing = tuple(each for each in item.metadata["read_when"] if not each.holds(found))
        if missing and not is_overruled(setting, missing, settings):
            raise UserError(
                f"{setting.source}: {item.name} is set, but nothing in this run reads it; "
                f"it works with {needs_text(missing)}{by_itself(missing, found)}"
            )


def by_itself(missing: Needs, found: Mapping[str, Any]) -> str:
    """What a key is that may also be null: then nobody need have set it."""
    several = [each for each in missing if isinstance(each, Condition) and None in each.values and each.values[1:]]
    return "".join(f"; here {each.key} is {found[each.key]}" for each in several if each.key != WORD)


def is_overruled(setting: Setting, missing: Needs, settings: Settings) -> bool:
    """Whether a source that counts more than the key's own has set what the key would need."""
    others = [settings[name] for each in missing for name in each.keys if name in settings]
    return any(other.set_by_user and other.rank > setting.rank for other in others)
