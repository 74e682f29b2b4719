"""docs/keys.md: every key of every script, and what becomes of TrainingArguments' names. `make keys` writes it."""

import dataclasses
import json
from collections.abc import Sequence

from heed.config import elsewhere
from heed.config.arena import ArenaConfig, PairsConfig, RateConfig
from heed.config.benchmarks import BenchmarkConfig
from heed.config.chat import ChatConfig
from heed.config.comparison import CompareConfig
from heed.config.conditions import needs_text
from heed.config.conversion import type_text
from heed.config.dpo import DPO_DEFAULTS, DPO_REFUSED, DpoConfig
from heed.config.evaluation import EvalConfig
from heed.config.inspect import InspectConfig
from heed.config.keys import default_text, field_types
from heed.config.sft import SftConfig
from heed.config.training_arguments import REFUSED, TRAINING_DEFAULTS

SCRIPTS = {
    "train_sft.py": SftConfig,
    "train_dpo.py": DpoConfig,
    "inspect_data.py": InspectConfig,
    "eval_responses.py": EvalConfig,
    "eval_benchmarks.py": BenchmarkConfig,
    "compare_runs.py": CompareConfig,
    "chat.py": ChatConfig,
    "arena.py": ArenaConfig,
    "arena.py rate": RateConfig,
    "arena.py pairs": PairsConfig,
}
OPENING = """# Keys

Written by `make keys` from the schemas in `heed/config/`. Write a key into the YAML file of `--config`, or give it
on the command line as `--key value`. A later file overrides an earlier one, and the command line overrides every file.
A key that is set where it has no effect is refused.
"""


def page() -> str:
    """The whole of docs/keys.md."""
    parts = [OPENING, *(keys_table(script, schema) for script, schema in SCRIPTS.items())]
    return "\n".join([*parts, defaults_table(), refused_table(), elsewhere_table()])


def keys_table(script: str, schema: type) -> str:
    types = field_types(schema)
    rows = [
        (
            f"`{item.name}`",
            type_text(types[item.name]),
            default_text(item),
            item.metadata["help"],
            needs_text(item.metadata["read_when"]),
        )
        for item in dataclasses.fields(schema)
    ]
    return f"## {script}\n\n" + table(("key", "value", "default", "what it does", "works with"), rows)


def defaults_table() -> str:
    rows = [(f"`{name}`", f"`{json.dumps(value)}`") for name, value in TRAINING_DEFAULTS.items()]
    opening = "Every name of `transformers.TrainingArguments` is a key of train_sft.py too. Heed's own defaults:"
    parts = [f"## TrainingArguments\n\n{opening}\n\n" + table(("key", "default"), rows)]
    more = {name: value for name, value in DPO_DEFAULTS.items() if TRAINING_DEFAULTS.get(name) != value}
    opening = "Every name of `trl.DPOConfig` is a key of train_dpo.py too. Heed's own defaults beside these:"
    parts.append(
        f"{opening}\n\n" + table(("key", "default"), [(f"`{n}`", f"`{json.dumps(v)}`") for n, v in more.items()])
    )
    return "\n".join(parts)


def refused_table() -> str:
    rows = [(f"`{name}`", reason) for name, reason in REFUSED.items()]
    of_dpo = [(f"`{name}`", reason) for name, reason in DPO_REFUSED.items() if REFUSED.get(name) != reason]
    parts = [
        "Refused, because they would do nothing here, or harm:\n\n" + table(("key", "why"), rows),
        "In train_dpo.py also, or for another reason:\n\n" + table(("key", "why"), of_dpo),
    ]
    return "\n".join(parts)


def elsewhere_table() -> str:
    """What people who come from other tools ask for, by the names they know."""
    rows = [(f"`{name}`", text) for name, text in sorted({**elsewhere.RENAMED, **elsewhere.ABSENT}.items())]
    opening = "Of TRL, axolotl, LLaMA-Factory, Unsloth and litgpt. Names that are the same here are left out."
    return f"## Keys of other tools\n\n{opening}\n\n" + table(("there", "here"), rows)


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *(tuple(cell.replace("|", "\\|") for cell in row) for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    print(page(), end="")
