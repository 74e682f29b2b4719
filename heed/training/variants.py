"""One command, several runs: a training for each seed, and for each share of the training rows."""

from dataclasses import dataclass, replace
from pathlib import Path

from heed.config import CommandLine, SftConfig
from heed.errors import UserError
from heed.training.arguments import Told

SMALLEST_SHARE = 1 / 16
FEWEST_POINTS = 4


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A run of the command, and where it goes."""

    folder: Path
    command_line: CommandLine


def variants(told: Told[SftConfig], command_line: CommandLine) -> list[Variant]:
    """The runs that `seeds` and `learning_curve` ask for. Raises UserError where they would get in each other's way."""
    sft, top = told.ours, Path(told.settings["output_dir"].value)
    refuse_at_odds(told, command_line)
    seeds: list[int | None] = [*sft.seeds] or [None]
    parts: list[float | None] = [*shares(sft.learning_curve)] if sft.learning_curve else [None]
    found = []
    for share in parts:
        for seed in seeds:
            folder = top / (f"share-{share:g}" if share else "") / (f"seed-{seed}" if seed is not None else "")
            own = {"output_dir": str(folder)}
            own |= {"seed": str(seed), "seeds": "[]"} if seed is not None else {}
            own |= {"train_share": str(share), "learning_curve": "0"} if share is not None else {}
            overrides = command_line.overrides | own
            found.append(Variant(folder=folder, command_line=replace(command_line, overrides=overrides)))
    return found


def refuse_at_odds(told: Told[SftConfig], command_line: CommandLine) -> None:
    sft = told.ours
    if not sft.compare_with_base:
        raise UserError("seeds and learning_curve compare runs by their answers; set compare_with_base: true too")
    if sft.push_to_hub:
        raise UserError("push_to_hub: several runs would overwrite each other's model; push the one you choose")
    if sft.resume != "auto":
        raise UserError(f"resume: {sft.resume} is about one run; with seeds or learning_curve each continues by itself")
    if len(set(sft.seeds)) < len(sft.seeds):
        raise UserError(f"seeds: {sft.seeds} names a seed twice")
    if len(sft.seeds) == 1:
        raise UserError(f"seeds: {sft.seeds} is one; give seed: {sft.seeds[0]}, or several to compare")
    if sft.seeds and "seed" in command_line.overrides:
        raise UserError("seed and seeds are both on the command line; leave one out")
    if sft.learning_curve and sft.learning_curve < FEWEST_POINTS:
        raise UserError(f"learning_curve: {sft.learning_curve} points are too few; give {FEWEST_POINTS} or more")
    if sft.learning_curve and sft.train_share != 1:
        raise UserError("train_share and learning_curve are both set; the curve chooses its own shares")


def shares(points: int) -> list[float]:
    """From 6 % to all of the rows, each the same multiple of the one before."""
    return [round(SMALLEST_SHARE ** (1 - place / (points - 1)), 4) for place in range(points)]
