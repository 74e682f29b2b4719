"""The YAML files and the command line, read strictly: every value has the type of its key and names its source."""

import difflib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from heed import shipped
from heed.config import elsewhere
from heed.config.conversion import convert
from heed.config.notation import NotYaml, compose, plain_value
from heed.config.settings import CommandLine, Setting, Settings
from heed.errors import UserError

NEAR = 0.8  # of difflib's likeness; a wrong suggestion is worse than none


def parse_command_line(arguments: Sequence[str], *, flags: Sequence[str]) -> CommandLine:
    """`--config FILE --key value --key=value --flag`; a key without a value means true, as for argparse's flags.

    Raises UserError for a stray word or a key given twice.
    """
    configs: list[str] = []
    overrides: dict[str, str] = {}
    found = dict.fromkeys(("dry_run", "explain", "column_map", "prepare", "verbose"), False)
    words = list(arguments)
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            raise UserError(f"{word!r} on the command line belongs to no --key")
        name, equals, value = word[2:].partition("=")
        name = name.replace("-", "_")
        if name in flags and not equals:
            found[name] = True
            continue
        if not equals:
            value = words.pop(0) if words and not words[0].startswith("--") else "true"
        if name == "config":
            configs.append(shipped.find(os.path.expanduser(value)))
        elif name in overrides:
            raise UserError(f"--{name} is given twice on the command line")
        else:
            overrides[name] = value
    return CommandLine(configs=tuple(configs), overrides=overrides, **found)


LONGEST = 1_000_000

# Keys whose value may be a path, where ~ is the home folder; in a list or mapping every value may.
PATHS = frozenset(
    {
        "model_name_or_path",
        "data",
        "forgetting",
        "prompt",
        "prepared",
        "audit_against",
        "resume",
        "output_dir",
        "logging_dir",
        "deepspeed",
        "fsdp_config",
        "html",
        "export",
        "leave_out",
        "pairs",
        "flags",
        "against",
        "run",
        "runs",
        "compare_with",
        "responses",
        "people",
        "judge_model",
        "judge_prompt",
        "judge_pair_prompt",
        "bertscore_model",
        "data_root",
        "model",
        "base",
        "models",
        "votes",
        "judge",
        "json",
        "csv",
        "out",
    }
)

# Keys whose value may name what comes with Heed; never one that is written to.
SHIPPED = frozenset({"model_name_or_path", "data", "forgetting", "model", "base", "models"})

AT_LEAST_ONE = (
    "per_device_train_batch_size",
    "per_device_eval_batch_size",
    "gradient_accumulation_steps",
    "tokens_per_batch",
    "max_length",
)


def read_settings(command_line: CommandLine, keys: Mapping[str, Any]) -> Settings:
    """The values of the YAML files and then of the command line, each turned into the type its key has.

    Raises UserError for unknown keys, values of the wrong type, counts below 1, and YAML that is not one flat mapping.
    """
    settings: Settings = {}
    for config in command_line.configs:
        settings |= read_yaml(Path(config), keys)
    for name, text in command_line.overrides.items():
        check_known(name, keys, "command line")
        value = convert(text, keys[name], f"--{name}")
        settings[name] = Setting(value=value, source="command line", set_by_user=True)
    for names, change in ((PATHS, os.path.expanduser), (SHIPPED, shipped.find)):
        for name in names & set(settings):
            settings[name] = replace(settings[name], value=changed(settings[name].value, change))
    for name in AT_LEAST_ONE:
        if name in settings and settings[name].value is not None and settings[name].value < 1:
            raise UserError(f"{settings[name].source}: {name}: {settings[name].value}, but it must be at least 1")
    return settings


def changed(value: Any, change: Callable[[str], str]) -> Any:
    """`value` with each text in it changed."""
    if isinstance(value, dict):
        return {name: changed(each, change) for name, each in value.items()}
    if isinstance(value, list):
        return [changed(each, change) for each in value]
    return change(value) if isinstance(value, str) else value


def read_yaml(path: Path, keys: Mapping[str, Any]) -> Settings:
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(LONGEST + 1)
    except FileNotFoundError as error:
        raise UserError(f"--config {path}: no such file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--config {path}: cannot be read ({error})") from error
    if len(text) > LONGEST:
        raise UserError(f"--config {path}: longer than {LONGEST:,} characters, which no config is")
    try:
        root = compose(text)
    except NotYaml as error:
        raise UserError(f"{path}: {error}") from error
    if not isinstance(root, yaml.MappingNode):
        raise UserError(f"{path}: expected lines of `key: value`")
    settings: Settings = {}
    for name_node, value_node in root.value:
        place = f"{path}:{name_node.start_mark.line + 1}"
        name = str(name_node.value)
        check_known(name, keys, place)
        if name in settings:
            raise UserError(f"{place}: {name} is given twice")
        value = convert(plain_value(value_node), keys[name], f"{place}: {name}")
        settings[name] = Setting(value=value, source=place, set_by_user=True)
    return settings


def check_known(name: str, keys: Mapping[str, Any], place: str) -> None:
    if name not in keys and (known := elsewhere.answer(name)):
        raise UserError(f"{place}: unknown key {name!r}; {known}")
    if name not in keys:
        nearest = difflib.get_close_matches(name, keys, n=1, cutoff=NEAR)
        hint = f"; did you mean {nearest[0]}?" if nearest else "; --help lists the keys"
        raise UserError(f"{place}: unknown key {name!r}{hint}")
