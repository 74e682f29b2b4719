"""The commands of README.md and docs/guide: found in the text, and a small world in which each can be typed.

A command is a line of an indented or fenced block that begins with the name of a program. Where a comment after it
begins with `not run:`, it is read and not run, and the rest of the comment says why.
"""

import json
import re
import shlex
import shutil
import sys
from dataclasses import dataclass
from itertools import dropwhile
from pathlib import Path

import yaml

from heed.shipped import COMMANDS
from world.small_world import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs" / "guide").glob("*.md"))]
PROGRAM = re.compile(
    r"(python|accelerate|torchrun|heed-\w+|make|pip|uv|uvx|git|apt|npm|npx|cd|echo|export|source|curl|docker|hf|sky|sbatch"
    r"|transformers|vllm|ollama|llama-\w+)$"
)
NOT_RUN = re.compile(r"#\s*not run: *(.*)$")
COMMENT = re.compile(r"(^|\s)#.*$")
VARIABLE = re.compile(r"[A-Z_]+=")
RUN = re.compile(r"\bruns/[\w-]+")
WRITES = ("--output_dir", "--html", "--export", "--out")  # what stands after one of these is made by the command
ROWS = 60
FEW = {"max_steps": 2, "per_device_train_batch_size": 2, "compare_max_new_tokens": 2}


@dataclass(frozen=True, kw_only=True)
class Command:
    place: str
    """file:line"""
    text: str
    """As one would type it, without the comment."""
    reason: str | None
    """Why it is not run; None for one that is."""

    @property
    def parts(self) -> list[list[str]]:
        """The words of each program in it, without the variables in front."""
        pieces = (shlex.split(piece) for piece in re.split(r"\s(?:\||&&)\s", self.text))
        return [list(dropwhile(VARIABLE.match, words)) for words in pieces]


def commands(page: Path) -> list[Command]:
    """Those in its blocks, in order."""
    found = []
    lines = iter(enumerate(page.read_text(encoding="utf-8").split("\n"), 1))
    fenced = False
    for number, line in lines:
        if line.startswith("```"):
            fenced = not fenced
        if not (fenced or line.startswith("    ")):
            continue
        text = line.strip()
        while text.endswith("\\"):
            text = f"{text[:-1].strip()} {next(lines)[1].strip()}"
        place = f"{page.relative_to(ROOT)}:{number}"
        command = Command(
            place=place,
            text=COMMENT.sub("", text).strip(),
            reason=reason.group(1).strip() if (reason := NOT_RUN.search(text)) else None,
        )
        if PROGRAM.match(next(dropwhile(VARIABLE.match, text.split()), "")):
            found.append(command)
        else:
            assert reason is None, f"{place}: {text!r} begins with no program that {__name__} knows"
    return found


def inline_commands(page: Path) -> list[Command]:
    """Those in running text, which are whole: nothing is left out with dots."""
    text = page.read_text(encoding="utf-8")
    return [
        Command(place=f"{page.relative_to(ROOT)}: {found}", text=found, reason=None)
        for found in re.findall(r"(?<!`)`((?:python|accelerate|make) [^`]+)`", text)
        if "..." not in found
    ]


def lay(folder: Path) -> None:
    """The repository as a reader has it, with configs that train the embedded model for two steps, and their files."""
    for path in ROOT.iterdir():
        if path.name not in ("configs", "runs", ".git"):
            (folder / path.name).symlink_to(path)
    shutil.copytree(ROOT / "configs", folder / "configs")
    (folder / "bin").mkdir()
    for name in COMMANDS:
        (folder / "bin" / name).write_text(f"#!{sys.executable}\nfrom heed.commands import main\nmain()\n")
        (folder / "bin" / name).chmod(0o755)
    rows = json.loads((ROOT / "data" / "instructions.json").read_text())[:ROWS]
    for name, some in (("rows.json", rows), ("test.json", rows[:5])):
        (folder / name).write_text(json.dumps(some))
    (folder / "my_rows.csv").write_text(
        "question,answer\n" + "".join(f"What is {n} and {n}?,It is {2 * n}.\n" for n in range(ROWS))
    )
    for path in (folder / "configs").glob("*.yaml"):
        config = yaml.safe_load(path.read_text())
        if config.pop("num_train_epochs", None) is not None:
            path.write_text(yaml.safe_dump(config | FEW if "pairs" in config else small(config)))
    mine = small({"output_dir": "runs/my", "split": "hash"}) | {"max_length": 256}
    (folder / "my.yaml").write_text(yaml.safe_dump(mine))


def small(config: dict[str, object]) -> dict[str, object]:
    """A config as it is, on the embedded model and few rows. One that names the reader's rows keeps them."""
    kept = ("output_dir", "prompt", "loss_on", "split", "split_shares")
    own = {name: config[name] for name in kept if name in config}
    data = config["data"] if config.get("data") == "my_rows.csv" else "rows.json"
    shares = {} if config.get("split") == "source" else {"split_shares": [0.7, 0.2, 0.1]}
    whole = {"model_name_or_path": "models/tiny-gpt2", "data": data, "sample_max_new_tokens": 2}
    return {**whole, "compare_with_base": True, **shares, **FEW} | own


def lay_runs(folder: Path, ready: Path, command: Command) -> None:
    """What the command reads and nothing before it has made: a copy of a finished run for each that it names."""
    written = {words[place + 1] for words in command.parts for place, word in enumerate(words[:-1]) if word in WRITES}
    for name in sorted(set(RUN.findall(command.text))):
        if name not in written and not (folder / name).exists():
            shutil.copytree(ready / ("adapter" if "adapter" in name else "whole"), folder / name)
