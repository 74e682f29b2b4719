"""A model as one GGUF file: dequantized once into a folder like any other, by transformers' own reader."""

import fcntl
import os
import shutil
import struct
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from heed.errors import UserError, reason_of
from heed.files import run_folder
from heed.files.hashes import file_sha256
from heed.shipped import setup

POINTER = b"version https://git-lfs.github.com"
# How files begin that are taken for models, and what they are.
BEGINNINGS = {
    POINTER: "a pointer that Git LFS left in place of the file; `git lfs pull` fetches it",
    b"PK\x03\x04": "a zip archive (so are a wheel and a PyTorch pickle); a model is a folder",
    b"\x80\x02": "a pickle, which Heed does not load",
    b"\x1f\x8b": "a gzip archive; unpack it first",
    b"{": "a JSON file; a model is the folder around it",
    b"<": "a page or another document, not a model",
}
# What transformers' reader raises for files that are damaged or contain something else.
UNREADABLE = (OSError, ValueError, LookupError, TypeError, RuntimeError, struct.error)


@cache
def folder_of(name: str) -> str:
    """The folder made from a .gguf file, now or from the cache; other names are returned as they are.

    Raises UserError for files that are not models, and for folders whose weights have not been fetched.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        refuse_unfetched(path)
    if not path.is_file():
        if path.suffix == ".gguf":
            raise UserError(f"there is no file {name}")
        return name
    refuse_other_files(path)
    if find_spec("gguf") is None:
        raise UserError(f"{name}: reading GGUF needs the gguf package; install it with `{setup('gguf')}`")
    folder = cached_folder(path)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("a") as held:
        fcntl.lockf(held, fcntl.LOCK_EX)  # the other processes of a launcher wait here for the one that writes
        if not folder.is_dir():
            print(f"model     {name} is GGUF: dequantizing it to float32 once, into {folder}", flush=True)
            staged = folder.with_suffix(".partial")
            shutil.rmtree(staged, ignore_errors=True)  # of a process that was killed
            dequantize(path, staged)
            staged.rename(folder)
    return str(folder)


def cached_folder(path: Path) -> Path:
    from huggingface_hub.constants import HF_HOME

    return Path(HF_HOME) / "heed" / "gguf" / file_sha256(path)[:16]


def refuse_unfetched(folder: Path) -> None:
    """Raises UserError for a clone without its large files, and for a folder with GGUF files only."""
    for path in sorted(folder.glob("*.safetensors")):
        if begins(path, len(POINTER)) == POINTER:
            raise UserError(f"{path} is {BEGINNINGS[POINTER]}")
    files = sorted(folder.glob("*.gguf"))
    if files and not run_folder.has_model(folder):
        raise UserError(f"{folder} has no config.json; name one of its GGUF files: {', '.join(map(str, files))}")


def refuse_other_files(path: Path) -> None:
    """Raises UserError for a file that is not GGUF, with what it is."""
    start = begins(path, 64)
    if start.startswith(b"GGUF"):
        return
    if path.suffix == ".safetensors" and not start.startswith(POINTER):
        raise UserError(f"{path} is a file of weights; name its folder, with config.json and the tokenizer")
    known = (what for beginning, what in BEGINNINGS.items() if start.startswith(beginning))
    raise UserError(f"{path} is {next(known, 'a file, and not GGUF')}; name a folder, a .gguf file or a Hub id")


def begins(path: Path, count: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(count)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error


def dequantize(path: Path, folder: Path) -> None:
    """Raises UserError for a file that transformers' reader does not understand."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    from heed.models.bars import silence_loading

    silence_loading()
    place = {"pretrained_model_name_or_path": os.path.dirname(path.absolute()), "gguf_file": path.name}
    try:
        tokenizer = AutoTokenizer.from_pretrained(**place)
        model = AutoModelForCausalLM.from_pretrained(
            **place, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
        )
    except UNREADABLE as error:
        raise UserError(f"{path} could not be read as a causal language model: {reason_of(error)}") from error
    # Plain dense weights from here on: nothing may take them for quantized ones.
    vars(model)["hf_quantizer"] = None
    vars(model).pop("is_quantized", None)
    vars(model).pop("quantization_method", None)
    vars(model.config).pop("quantization_config", None)
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)
