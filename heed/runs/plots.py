"""Plots from the files a run wrote; no model is needed."""

import re
from pathlib import Path
from typing import Any

from heed.files import run_folder
from heed.files.lines import kept_values
from heed.saying import count

OF_A_SET = re.compile(r"(eval(?:_(.+))?)_loss")


def plot_losses(folder: Path) -> Path:
    """Draw training and validation loss over epochs (below) and tokens seen (above) into loss.png."""
    from matplotlib.figure import Figure  # heavy, and only needed here

    logs = kept_values(folder / run_folder.METRICS_FILE)
    train = [log for log in logs if "loss" in log]
    initial = [log for log in logs if "initial_train_loss" in log]
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(
        [0.0] * len(initial) + epochs(train),
        [log["initial_train_loss"] for log in initial] + [log["loss"] for log in train],
        color="tab:blue",
        label="training (mean since the last point)",
    )
    for title, prefix in validation_sets(logs).items():
        own = [log for log in logs if f"{prefix}_loss" in log]
        axes.plot(
            epochs(own),
            [log[f"{prefix}_loss"] for log in own],
            color="tab:orange" if prefix == "eval" else None,
            linestyle="--",
            marker="o",
            markersize=3,
            label=f"{title} ({count(own[-1][f'{prefix}_rows'], 'row')}, {own[-1][f'{prefix}_tokens']:,} tokens)",
        )
    axes.set_xlabel("epochs")
    axes.set_ylabel("loss per supervised token (nats)")
    axes.grid(alpha=0.3)
    axes.legend()
    add_token_axis(axes, train)
    path = folder / run_folder.LOSS_PLOT
    with run_folder.whole_file(path) as file:
        figure.savefig(file.buffer, format="png", dpi=120)
    return path


def validation_sets(logs: list[dict[str, Any]]) -> dict[str, str]:
    """What each validation set is called, the one that steers first, and what its numbers begin with in a log."""
    found = [set_of for log in logs for name in log if (set_of := OF_A_SET.fullmatch(name))]
    return {f"validation {each[2] or ''}".strip(): each[1] for each in found}


def epochs(logs: list[dict[str, Any]]) -> list[float]:
    return [log["epoch"] for log in logs]


def add_token_axis(axes: Any, train: list[dict[str, Any]]) -> None:
    """A second scale on top: tokens seen grow with epochs at the same pace, so one line maps to the other."""
    seen = [(log["epoch"], log["num_input_tokens_seen"]) for log in train if log.get("num_input_tokens_seen")]
    if not seen:
        return
    last_epoch, last_tokens = seen[-1]
    rate = last_tokens / last_epoch
    top = axes.secondary_xaxis("top", functions=(lambda epoch: epoch * rate, lambda tokens: tokens / rate))
    top.set_xlabel("tokens seen, padding not counted")
