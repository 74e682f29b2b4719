"""How scripts start: as `python train_sft.py`, or as `heed-train` where Heed was installed with pip."""

import gc
import os
import sys
from collections.abc import Callable, Sequence
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from heed.errors import exit_code
from heed.shipped import COMMANDS, SHIPPED


def main() -> None:
    """The script of the command that was typed."""
    run_script(load(COMMANDS[Path(sys.argv[0]).stem]).main)


def run_script(main: Callable[[Sequence[str]], Any]) -> NoReturn:
    """Run a script's `main` with what was typed, and exit with the code that says how it ended."""
    let_threads_sleep()
    gc.disable()  # until workers.what_is_here_stays
    sys.exit(exit_code(lambda: main(sys.argv[1:])))


def let_threads_sleep() -> None:
    """Let OpenMP's threads spin for a moment while they wait, and then sleep; a user's own setting stays.

    Threads that spin for long make a machine with other work many times slower, and those that never do wake too late
    for the next small operation (docs/decisions/libraries.md). torch reads this when it is imported.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "passive"
        os.environ.setdefault("GOMP_SPINCOUNT", "3000")


def load(name: str) -> ModuleType:
    """A script as a module; it is no part of the package."""
    spec = spec_from_file_location(name, SHIPPED / f"{name}.py")
    assert spec is not None and spec.loader is not None
    script = module_from_spec(spec)
    spec.loader.exec_module(script)
    return script
