"""Runs whose configs differ only in the seed are one recipe; and what differs between recipes."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from heed.saying import count
from heed.study.runs import SEEDS, Run

DEFAULTS = ("default", "Heed's default")
# What the names in a config refer to: other rows or weights make another recipe though the names are the same.
BEHIND_THE_NAMES = ("data", "train_rows", "base", "model.frozen", "template", "tokenizer")


@dataclass(frozen=True)
class Recipe:
    """`settings` are the keys that differ between recipes, with this one's values."""

    runs: list[Run]
    settings: dict[str, Any]

    @property
    def name(self) -> str:
        """The run's own, or that of the folder that its runs share."""
        names = [run.name for run in self.runs]
        if len(names) == 1:
            return names[0]
        folders = {run.folder.parent for run in self.runs}
        if len(folders) > 1:
            return ", ".join(names)
        return f"{os.path.dirname(names[0]) or folders.pop().name} ({count(len(names), 'seed')})"


def recipes(runs: Sequence[Run]) -> list[Recipe]:
    """In the order of their first runs."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(json.dumps(recipe_of(run), sort_keys=True, default=str), []).append(run)
    differ = differing([group[0] for group in groups.values()])
    return [Recipe(group, {name: shown(group[0], name) for name in differ}) for group in groups.values()]


def recipe_of(run: Run) -> dict[str, Any]:
    known = run.facts.get("fingerprint", {})
    behind = {f"fingerprint {name}": known[name] for name in BEHIND_THE_NAMES if name in known}
    return {name: value for name, value in run.config.items() if name not in SEEDS} | behind


def differing(runs: Sequence[Run]) -> list[str]:
    """Keys other than seeds whose values differ between runs; where there are none, what equal names refer to.

    A key that some of the runs do not have, being of another kind, counts where it is not at its default.
    """
    configs = [recipe_of(run) for run in runs]
    shared = set.intersection(*map(set, configs)) if configs else set()
    for run, config in zip(runs, configs, strict=True):
        for name in config.keys() & run.evidence.config.keys() - shared:
            if run.evidence.config[name]["source"] in DEFAULTS:
                del config[name]
    names = dict.fromkeys(name for config in configs for name in config)
    differ = [name for name in names if any(config.get(name) != configs[0].get(name) for config in configs)]
    return [name for name in differ if not name.startswith("fingerprint ")] or differ


def shown(run: Run, name: str) -> Any:
    value = recipe_of(run).get(name)
    return value[:12] if name.startswith("fingerprint ") and isinstance(value, str) else value
