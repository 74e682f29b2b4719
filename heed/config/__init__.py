"""The settings of a run: one flat YAML file and the command line, checked strictly, every value with its source.

Two kinds of keys: those of a script (one module here for each script) and, for training, every name of
`transformers.TrainingArguments`. An unknown key is an error that names the nearest right one; so is a key that is
set and never read, and two keys that contradict each other.
"""

from heed.config.arena import ArenaConfig, PairsConfig, RateConfig
from heed.config.benchmarks import BenchmarkConfig
from heed.config.chat import ChatConfig
from heed.config.comparison import CompareConfig
from heed.config.conditions import refuse_unread
from heed.config.conversion import convert
from heed.config.evaluation import EvalConfig
from heed.config.inspect import InspectConfig
from heed.config.keys import explain, field_types, help_text, resolved_values, script_config
from heed.config.load import Loaded, asks_for_help, load, searched_word
from heed.config.reader import parse_command_line, read_settings
from heed.config.settings import CommandLine, Setting, Settings
from heed.config.sft import SftConfig
from heed.config.training_arguments import (
    REFUSED,
    TRAINING_DEFAULTS,
    check_launcher,
    derive_accumulation,
    refuse_both,
    training_settings,
)

__all__ = [
    "REFUSED",
    "TRAINING_DEFAULTS",
    "ArenaConfig",
    "BenchmarkConfig",
    "ChatConfig",
    "CommandLine",
    "CompareConfig",
    "EvalConfig",
    "InspectConfig",
    "Loaded",
    "PairsConfig",
    "RateConfig",
    "Setting",
    "Settings",
    "SftConfig",
    "asks_for_help",
    "check_launcher",
    "convert",
    "derive_accumulation",
    "explain",
    "field_types",
    "help_text",
    "load",
    "parse_command_line",
    "read_settings",
    "refuse_both",
    "refuse_unread",
    "resolved_values",
    "script_config",
    "searched_word",
    "training_settings",
]
