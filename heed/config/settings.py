"""A value with its source, and what the command line says."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A value and where it came from: "default", "Heed's default", "configs/tiny.yaml:7" or "command line"."""

    value: Any
    source: str
    set_by_user: bool = False

    @property
    def rank(self) -> int:
        return 2 if self.source == "command line" else 1


Settings = dict[str, Setting]


@dataclass(frozen=True, kw_only=True)
class CommandLine:
    configs: tuple[str, ...]
    """If two set a key, the later one counts."""
    overrides: dict[str, str]
    dry_run: bool
    explain: bool
    column_map: bool
    prepare: bool
    verbose: bool
