"""What comes with Heed beside its code: scripts, prompts, configs, the embedded rows and model."""

from pathlib import Path

PACKAGE = Path(__file__).parent
# An installed package has them in a folder of its own (see pyproject.toml), the repository at its top.
SHIPPED = PACKAGE / "share" if (PACKAGE / "share").is_dir() else PACKAGE.parent
INSTALLED = PACKAGE.parent != SHIPPED
FOLDERS = ("configs", "data", "models")
# command -> script
COMMANDS = {
    "heed-train": "train_sft",
    "heed-dpo": "train_dpo",
    "heed-eval": "eval_responses",
    "heed-benchmarks": "eval_benchmarks",
    "heed-inspect": "inspect_data",
    "heed-compare": "compare_runs",
    "heed-arena": "arena",
    "heed-chat": "chat",
}


def find(path: str) -> str:
    """The path of a file or folder; where there is none and one of that name is shipped, of that one."""
    named = Path(path)
    if named.parts[:1] and named.parts[0] in FOLDERS and not named.exists() and (SHIPPED / named).exists():
        return str(SHIPPED / named)
    return path


def command(script: str) -> str:
    """How a script is started, as one types it."""
    return next(name for name in COMMANDS if COMMANDS[name] == script) if INSTALLED else f"python {script}.py"


def setup(extra: str) -> str:
    """How the packages are installed that an extra of pyproject.toml names."""
    target = f"{extra}-setup" if extra in ("arena", "benchmarks") else f"setup-{extra}"
    return f"pip install 'heed[{extra}]'" if INSTALLED else f"make {target}"
