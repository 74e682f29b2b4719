"""Compare runs: which recipe is best, whether that is more than noise, and on which rows they differ.

    python compare_runs.py runs/a runs/b runs/c
    python compare_runs.py runs                        every run in a folder
    python compare_runs.py runs --headline_metric rougeL --output_dir comparison

Reads what the runs have written and loads no model. Runs whose configs differ in the seed alone count as one recipe.
Writes compared.html and compared.json.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from heed import config
from heed.commands import run_script
from heed.config import CompareConfig
from heed.workers import what_is_here_stays


def main(arguments: Sequence[str]) -> None:
    loaded = config.load(CompareConfig, runs_as_key(arguments), doc=__doc__)
    if loaded is None:
        return
    from heed.study import compare_runs  # after the command line is known to be good

    what_is_here_stays()
    ours = loaded.config
    output_dir = Path(ours.output_dir) if ours.output_dir is not None else None
    compare_runs([Path(run) for run in ours.runs], output_dir, ours.headline_metric)


def runs_as_key(arguments: Sequence[str]) -> list[str]:
    """The words in front of the first key are the runs."""
    first = next((place for place, word in enumerate(arguments) if word.startswith("-")), len(arguments))
    return ([f"--runs={json.dumps(arguments[:first])}"] if first else []) + list(arguments[first:])


if __name__ == "__main__":
    run_script(main)
