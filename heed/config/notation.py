"""YAML as Heed reads it: scalars stay the text they were written in, numbers are YAML 1.2's, and growth is bounded."""

import math
import re
from typing import Any

import yaml

from heed.errors import reason_of

MOST_NODES = 100_000  # of a file or value with its aliases written out
DEEPEST = 50
NUMBER = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
WHOLE = re.compile(r"[-+]?[0-9]+")
ENDLESS = {".inf": math.inf, "+.inf": math.inf, "-.inf": -math.inf, ".nan": math.nan}
MERGED = "`<<` is not read; give two --config files instead; the later one wins key by key"


class NotYaml(ValueError):
    """Text that is not YAML, or more of it than anybody writes."""


class Quoted(str):
    """Text that was in quotes, and so is text even where it looks like a number."""

    __slots__ = ()


def compose(text: str) -> yaml.Node | None:
    """The nodes of a YAML text; raises NotYaml for other text, for merge keys, and for bombs."""
    try:
        root: yaml.Node | None = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise NotYaml(f"not YAML: {reason_of(error)}") from error
    except RecursionError as error:
        raise NotYaml(f"nested more than {DEEPEST} deep") from error
    left = [(root, 0)] if root is not None else []
    count = 0
    while left:
        node, depth = left.pop()
        count += 1
        if depth > DEEPEST:
            raise NotYaml(f"nested more than {DEEPEST} deep")
        if count > MOST_NODES:
            raise NotYaml(f"more than {MOST_NODES:,} values, aliases written out")
        if isinstance(node, yaml.MappingNode):
            if any(name.tag == "tag:yaml.org,2002:merge" for name, _ in node.value):
                raise NotYaml(MERGED)
            left += [(each, depth + 1) for pair in node.value for each in pair]
        elif isinstance(node, yaml.SequenceNode):
            left += [(each, depth + 1) for each in node.value]
    return root


def plain_value(node: yaml.Node) -> Any:
    """A YAML value with its scalars as the text they were written in: the key's type decides what they are.

    (YAML 1.1 reads `no` as false and 2e-5 as text.)
    """
    if isinstance(node, yaml.MappingNode):
        return {str(name.value): plain_value(value) for name, value in node.value}
    if isinstance(node, yaml.SequenceNode):
        return [plain_value(value) for value in node.value]
    if node.tag == "tag:yaml.org,2002:null":
        return None
    quoted = isinstance(node, yaml.ScalarNode) and node.style in ("'", '"')
    return Quoted(node.value) if quoted else str(node.value)


def parse(text: str) -> Any:
    """`{a: 1}`, `["a", b]` and the like from the command line, scalars as text, as they come from a file."""
    node = compose(text)
    return plain_value(node) if node is not None else None


def number(text: str) -> float:
    """Raises ValueError for text that YAML 1.2 does not take for a number, such as 1_000."""
    if text.lower() in ENDLESS:
        return ENDLESS[text.lower()]
    if not NUMBER.fullmatch(text):
        raise ValueError
    return float(text)


def free_value(value: Any) -> Any:
    """What a value means where no key says its type: YAML 1.2's null, true, false and numbers, otherwise text."""
    if isinstance(value, dict):
        return {name: free_value(each) for name, each in value.items()}
    if isinstance(value, list):
        return [free_value(each) for each in value]
    if not isinstance(value, str) or isinstance(value, Quoted):
        return None if value is None else str(value)
    if value.lower() in ("null", "true", "false"):
        return {"null": None, "true": True, "false": False}[value.lower()]
    if WHOLE.fullmatch(value):
        return int(value)
    try:
        return number(value)
    except ValueError:
        return value
