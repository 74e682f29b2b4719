"""Pushing during a run: its settings, and when something is queued."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from heed.config.training import RunKeys
from heed.errors import UserError
from heed.hub.card import model_card, write_card
from heed.hub.metadata import CARD_FILE
from heed.hub.outbox import SAID, Outbox, Target, check_repo_id
from heed.saying import Say

LICENSE = re.compile(r"[a-z0-9][a-z0-9.-]*")


@dataclass(frozen=True, kw_only=True)
class HubSettings:
    """What is pushed where. `wait` is how many seconds the run may wait at its end."""

    target: Target
    strategy: Literal["end", "checkpoints", "best"]
    wait: float

    @property
    def queued(self) -> int:
        """How many checkpoints the queue may keep: one is being sent, and a newer one waits."""
        return 0 if self.strategy == "end" else 2


def hub_settings(run: RunKeys, args: TrainingArguments) -> HubSettings:
    """Of a run that is pushed. Raises UserError for keys that cannot work together."""
    if run.hub_model_id is None:
        raise UserError("push_to_hub: true needs hub_model_id, the repository's name, such as me/my-model")
    check_repo_id(run.hub_model_id, "hub_model_id")
    saved, scored = (str(getattr(each, "value", each)) for each in (args.save_strategy, args.eval_strategy))
    if run.hub_strategy != "end" and saved == "no":
        raise UserError(f"hub_strategy: {run.hub_strategy} sends checkpoints, and save_strategy: no writes none")
    if run.hub_strategy == "best" and scored == "no":
        raise UserError("hub_strategy: best needs evaluations, or no checkpoint is the best; set eval_strategy")
    if run.hub_license is not None and not LICENSE.fullmatch(run.hub_license):
        raise UserError(
            f"hub_license: {run.hub_license!r} is not how the Hub names one, such as apache-2.0, mit or cc-by-4.0; "
            "it would refuse the card"
        )
    return HubSettings(
        target=Target(repo_id=run.hub_model_id, revision=run.hub_revision or "main", private=run.hub_private_repo),
        strategy=run.hub_strategy,
        wait=run.hub_wait,
    )


class Pushes(TrainerCallback):
    """Queues checkpoints as they are written, and the model when all is done; no training waits or fails by it."""

    def __init__(self, run: Path, settings: HubSettings, say: Say) -> None:
        self.run, self.settings, self.say = run, settings, say
        self.outbox = Outbox(run, settings.target, say)

    @property
    def address(self) -> str:
        return f"{self.settings.target.repo_id}@{self.settings.target.revision}"

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.outbox.start()  # what an interrupted run has left

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        best = state.best_global_step == state.global_step
        if self.settings.strategy == "checkpoints" or (self.settings.strategy == "best" and best):
            name = f"checkpoint-{state.global_step}"
            self.outbox.add(self.run / name, name, texts=self.card(model_card))

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.outbox.tell()

    def finish(self) -> bool:
        """Queue the finished model with its card; wait for as long as is allowed. True: all has arrived."""
        self.outbox.add(self.run, "the model", texts=self.card(write_card))
        return self.outbox.finish(self.settings.wait)

    def card(self, make: Callable[[Path, str, str], str]) -> dict[str, str]:
        target = self.settings.target
        try:
            return {CARD_FILE: make(self.run, target.repo_id, target.revision)}
        except (UserError, OSError) as error:
            self.say(f"{SAID}WARNING: there is no card: {error}")
            return {}
