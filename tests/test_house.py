"""The walls of the house: which room may import which, read from the imports themselves."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from world.small_world import ROOT

# From the ground up; a room imports rooms of lower floors only, and nothing imports a script.
FLOORS = (
    ("saying", "shipped"),
    ("errors", "hardware"),
    ("config", "files", "servers", "processes", "workers"),
    ("data", "pages"),
    ("prompts",),
    ("tokens",),
    ("audit", "runs"),
    ("models",),
    ("answers",),
    ("measure",),
    ("training", "judge", "arena"),
    ("benchmarks", "report", "preferences"),
    ("evaluation",),
    ("hub", "merge", "study"),
    ("course", "export"),
    ("commands",),
    ("notebook",),
    ("__init__",),
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
WITHOUT_TORCH = (
    "errors",
    "saying",
    "shipped",
    "workers",
    "config",
    "files",
    "servers",
    "data",
    "pages",
    "prompts",
    "measure",
    "report",
)
HEAVY = {"torch", "transformers", "datasets", "accelerate", "peft", "trl"}


def imports(path: Path) -> Iterator[str]:
    """What a file imports anywhere, by full name."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "heed":
            yield from (f"heed.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def room_of(name: str) -> str:
    return name.split(".")[1]


FILES = sorted((ROOT / "heed").rglob("*.py"))


def test_imports_go_down_only() -> None:
    for path in FILES:
        room = path.relative_to(ROOT / "heed").with_suffix("").parts[0]
        others = {room_of(name) for name in imports(path) if name.startswith("heed.") and name != "heed.__version__"}
        assert all(FLOOR[other] < FLOOR[room] for other in others - {room}), f"{path.relative_to(ROOT)}: {others}"


def test_nothing_imports_a_script() -> None:
    scripts = {path.stem for path in ROOT.glob("*.py")}
    for path in FILES:
        assert not scripts & {name.partition(".")[0] for name in imports(path)}, path


def test_light_rooms_load_nothing_heavy() -> None:
    light = [path for path in FILES if path.relative_to(ROOT / "heed").with_suffix("").parts[0] in WITHOUT_TORCH]
    for path in light:
        assert "torch" not in {name.partition(".")[0] for name in imports(path)}, path
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in light]
    program = f"import sys; [__import__(name) for name in {names}]; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert not HEAVY & set(done.stdout.split()), done.stderr
