"""What decides the numbers of a run: a run continues only where all of it is the same."""

import difflib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from heed.errors import UserError

Fingerprint = dict[str, Any]

# A checkpoint's tensors have the shapes and the meaning that these give them.
UNCHANGEABLE = (
    *("model.", "optim", "use_peft", "lora_r", "lora_target_modules", "load_in_4bit", "load_in_8bit", "dtype"),
    *("use_dora", "modules_to_save"),
)


def refuse_unknown(allowed: Sequence[str], known: Mapping[str, Any]) -> None:
    """Raises UserError for a key in allow_changed that runs are not compared by."""
    for name in allowed:
        if name not in known:
            nearest = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {nearest[0]}?" if nearest else f": {', '.join(known)}"
            raise UserError(f"allow_changed: {name!r} is not a key that runs are compared by{hint}")


def check_same(then: Mapping[str, Any], now: Mapping[str, Any], *, allowed: Sequence[str], place: str) -> list[str]:
    """The keys that differ and may. Raises UserError with all that differ and may not, and with `allowed` that cannot.

    `place` is what the first was read from.
    """
    fixed = [name for name in allowed if name.startswith(UNCHANGEABLE) and then.get(name) != now.get(name)]
    if fixed:
        raise UserError(
            f"allow_changed: {fixed[0]} cannot be changed in a run: the tensors of {place} are made for it; "
            "choose another output_dir"
        )
    differ = [name for name in {**then, **now} if then.get(name) != now.get(name)]
    refused = [name for name in differ if name not in allowed]
    if refused:
        lines = [f"\n  {name}: {text(then.get(name))} then, {text(now.get(name))} now" for name in refused]
        raise UserError(
            f"{place} belongs to a run that differs from this one:{''.join(lines)}\n"
            f"Set them back, choose another output_dir, start over with overwrite_output_dir: true, or allow the "
            f"changes with allow_changed: {','.join(refused)}"
        )
    return differ


def text(value: Any) -> str:
    return "not set" if value is None else json.dumps(value)
