"""Plots from the files a run wrote; no model is needed."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from heed.files import run_folder
from heed.files.lines import kept_values
from heed.saying import count

OF_A_SET = re.compile(r"(eval(?:_(.+))?)_loss")


def plot_losses(folder: Path) -> Path:
    """Draw training and validation loss over epochs (below) and tokens seen (above) into loss.png.

    Of a run on preferences also the rewards: how often the chosen answer has the higher one, and by how much.
    """
    from matplotlib.figure import Figure  # heavy, and only needed here

    logs = kept_values(folder / run_folder.METRICS_FILE)
    train = [log for log in logs if "loss" in log]
    of_preferences = any("rewards/margins" in log for log in train)
    figure = Figure(figsize=(8, 8 if of_preferences else 5), layout="constrained")
    axes, *rest = figure.subplots(3 if of_preferences else 1, sharex=True, squeeze=False)[:, 0]
    draw(axes, logs, "loss", first=[log for log in logs if "initial_train_loss" in log])
    axes.set_ylabel("loss per pair" if of_preferences else "loss per supervised token (nats)")
    for below, (name, label) in zip(rest, REWARDS.items(), strict=False):
        draw(below, logs, name)
        below.set_ylabel(label)
    figure.axes[-1].set_xlabel("epochs")
    add_token_axis(axes, train)
    path = folder / run_folder.LOSS_PLOT
    with run_folder.whole_file(path) as file:
        figure.savefig(file.buffer, format="png", dpi=120)
    return path


REWARDS = {"rewards/accuracies": "pairs the right way round", "rewards/margins": "reward, chosen minus rejected"}


def draw(axes: Any, logs: list[dict[str, Any]], name: str, first: Sequence[dict[str, Any]] = ()) -> None:
    """A number of the training logs, and of the evaluations; `first` logs have it from before the first step."""
    train = [log for log in logs if name in log]
    axes.plot(
        [0.0] * len(first) + epochs(train),
        [log[f"initial_train_{name}"] for log in first] + [log[name] for log in train],
        color="tab:blue",
        label="training (mean since the last point)",
    )
    for title, prefix in validation_sets(logs).items():
        own = [log for log in logs if f"{prefix}_{name}" in log]
        axes.plot(
            epochs(own),
            [log[f"{prefix}_{name}"] for log in own],
            color="tab:orange" if prefix == "eval" else None,
            linestyle="--",
            marker="o",
            markersize=3,
            label=f"{title} ({count(own[-1][f'{prefix}_rows'], 'row')}, {own[-1][f'{prefix}_tokens']:,} tokens)",
        )
    axes.grid(alpha=0.3)
    axes.legend()


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
