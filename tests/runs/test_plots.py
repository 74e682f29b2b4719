import json
from pathlib import Path

from PIL import Image

from heed.runs.plots import epochs, plot_losses, validation_sets

LOGS = [
    {"step": 0, "epoch": 0.0, "initial_train_loss": 3.0, "initial_train_rows": 4, "initial_train_tokens": 40},
    {"step": 0, "epoch": 0.0, "eval_loss": 3.1, "eval_rows": 4, "eval_tokens": 40},
    {"step": 5, "epoch": 0.5, "loss": 2.0, "num_input_tokens_seen": 500},
    {"step": 10, "epoch": 1.0, "loss": 1.0, "num_input_tokens_seen": 1000},
    {"step": 10, "epoch": 1.0, "eval_loss": 1.5, "eval_rows": 4, "eval_tokens": 40},
]


def test_the_plot_is_drawn_from_the_metrics_file_alone(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(log) + "\n" for log in LOGS))
    path = plot_losses(tmp_path)
    with Image.open(path) as image:
        assert image.format == "PNG" and image.size == (960, 600)
        assert len(image.convert("RGB").getcolors(maxcolors=10**6) or ()) > 50  # something is on it


def test_each_validation_set_is_drawn_under_its_name() -> None:
    logs = [*LOGS, {"step": 10, "epoch": 1.0, "eval_far_loss": 2.5, "eval_far_rows": 2, "eval_far_tokens": 9}]
    assert validation_sets(logs) == {"validation": "eval", "validation far": "eval_far"}


def test_a_run_without_evaluation_or_tokens_is_drawn_too(tmp_path: Path) -> None:
    logs = [{"step": 5, "epoch": 0.5, "loss": 2.0}]
    (tmp_path / "metrics.jsonl").write_text(json.dumps(logs[0]) + "\n")
    assert plot_losses(tmp_path).is_file()
    assert epochs(logs) == [0.5]
