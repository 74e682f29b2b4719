"""A model folder as one GGUF file, by llama.cpp's own converter."""

import os
import subprocess
import sys
from pathlib import Path

from heed.errors import UserError

INSTALLED = (
    Path(__file__).parent.parent.parent / ".venv" / "export"
)  # by `make export-setup`: only processes that need it look in there
TYPES = ("f16", "q8_0", "f32", "bf16")


def environment() -> dict[str, str]:
    """Of a process that looks into the folder of its own, and fetches nothing."""
    return os.environ | {"PYTHONPATH": str(INSTALLED), "HF_HUB_OFFLINE": "1"}


def check_type(name: str) -> None:
    if name not in TYPES:
        raise UserError(
            f"--type: {name} is not one of {', '.join(TYPES)}, which the converter writes; make it of a proved f16 "
            f"file with llama.cpp's own program: llama-quantize FILE.gguf {name}.gguf {name}"
        )


def is_installed() -> bool:
    return (INSTALLED / "convert_hf_to_gguf.py").is_file()


def refuse_unready() -> None:
    if not is_installed():
        raise UserError("--to gguf needs llama.cpp's converter; install it with `make export-setup`")


def convert(model: Path, file: Path, *, type: str, name: str) -> None:
    """Write `file` from a folder with safetensors, tokenizer.json and a prompt contract.

    Raises UserError, with the converter's last line, for a model or tokenizer that it does not know.
    """
    program = [sys.executable, "-P", str(Path(__file__).parent / "converter.py"), str(model)]
    words = [*program, "--outtype", type, "--outfile", str(file), "--model-name", name]
    done = subprocess.run(words, env=environment(), capture_output=True, text=True, errors="replace")
    if done.returncode != 0 or not file.is_file():
        said = done.stderr.strip().splitlines() or ["it said nothing"]
        raise UserError(f"{model}: llama.cpp's converter does not take this model: {said[-1]}")
