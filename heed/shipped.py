"""What comes with Heed beside its code: scripts, prompts, configs, the embedded rows and model."""

from pathlib import Path

PACKAGE = Path(__file__).parent
# An installed package has them in a folder of its own (see pyproject.toml), the repository at its top.
SHIPPED = PACKAGE / "share" if (PACKAGE / "share").is_dir() else PACKAGE.parent
FOLDERS = ("configs", "data", "models")


def find(path: str) -> str:
    """The path of a file or folder; where there is none and one of that name is shipped, of that one."""
    named = Path(path)
    if named.parts[:1] and named.parts[0] in FOLDERS and not named.exists() and (SHIPPED / named).exists():
        return str(SHIPPED / named)
    return path
