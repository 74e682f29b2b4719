"""The scripts as commands, for those who install Heed with pip: `heed-train` is `python train_sft.py`."""

import os
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from heed.errors import exit_code
from heed.shipped import COMMANDS, SHIPPED


def main() -> None:
    """The script of the command that was typed."""
    # OpenMP threads that wait should sleep: spinning ones make a machine with other work many times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    script = load(COMMANDS[Path(sys.argv[0]).stem])
    sys.exit(exit_code(lambda: script.main(sys.argv[1:])))


def load(name: str) -> ModuleType:
    """A script as a module; it is no part of the package."""
    spec = spec_from_file_location(name, SHIPPED / f"{name}.py")
    assert spec is not None and spec.loader is not None
    script = module_from_spec(spec)
    spec.loader.exec_module(script)
    return script
