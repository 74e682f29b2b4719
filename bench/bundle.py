"""Puts what a machine with a GPU, PyTorch and no network lacks into one folder; `make gpu-bundle` calls it.

python -m bench.bundle .gpu                     # here: wheels and a driver; carry the folder with the checkout
bash .gpu/run.sh --out $OUT/performance-gpu.json     # there, in the checkout: all of bench/gpu.py in one call

Rows need no place in it: bench/rows.py makes them.
"""

import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

# What Heed and TRL import that such machines do not have, or not in the versions that Heed is tested with.
PACKAGES: tuple[str, ...] = ("transformers", "tokenizers", "huggingface_hub", "datasets", "accelerate", "peft", "trl")
PACKAGES += ("dill", "multiprocess", "httpx2", "httpcore2", "truststore", "regex", "safetensors")
PYTHON, PLATFORMS = "3.12", ("2_28", "2_27", "2_17")
MOST_MB = 60
DRIVER = """\
# Installs the wheels beside it into a folder of its own, and measures. No network; the checkout stays as it is.
set -e
here=$(cd "$(dirname "$0")" && pwd)
site=$(mktemp -d)
if ls "$here"/*.whl >/dev/null 2>&1; then
    python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --target "$site" "$here"/*.whl
fi
export PYTHONPATH="$site:." PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1
exec "${PYTHON:-python3}" -m bench.gpu "$@"
"""


def main(arguments: Sequence[str]) -> None:
    folder = Path(arguments[0])
    write_driver(folder)
    platforms = [f"--platform=manylinux_{each}_x86_64" for each in PLATFORMS] + ["--platform=manylinux2014_x86_64"]
    options = ["--only-binary=:all:", "--no-deps", f"--python-version={PYTHON}", "--implementation=cp", *platforms]
    wanted = [f"{name}=={version(name)}" for name in PACKAGES]
    download = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "-q"]
    subprocess.run([*download, *options, "-d", str(folder), *wanted], check=True)
    size = sum(file.stat().st_size for file in folder.iterdir()) / 2**20
    print(f"{folder}: {len(wanted)} wheels, {size:.0f} MB")
    if size > MOST_MB:
        raise SystemExit(f"{folder} has {size:.0f} MB, and {MOST_MB} are taken along")


def write_driver(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.whl"):  # two versions of a package stop the whole installation
        old.unlink()
    (folder / "run.sh").write_text(DRIVER)


if __name__ == "__main__":
    main(sys.argv[1:])
