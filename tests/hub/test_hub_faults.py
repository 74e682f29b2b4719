"""Real trainings while the Hub fails; `make faults-hub` also does it to transformers' Trainer."""

import os
import subprocess
import sys

import pytest

from world.small_world import ROOT


@pytest.mark.slow
def test_whatever_the_hub_does_the_training_finishes_exactly_and_everything_arrives_after() -> None:
    variables = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": ".:tests"}
    done = subprocess.run(
        [sys.executable, "-m", "faults.hub", "--ours"], cwd=ROOT, env=variables, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAILED" not in done.stdout
