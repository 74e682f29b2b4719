"""A folder with a model and rows, what an unbroken run ends with, and how outcomes are counted."""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

from faults import stock
from faults.harness import Forks, logged, wait, weights, write_config


class Lab:
    """A folder with a model and rows, and what an unbroken run of each trainer ends with."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.random = folder, random.Random(seed)
        self.forks = Forks()
        self.config = write_config(folder)
        self.log = folder / "log"
        self.number = 0
        self.whole: dict[tuple[int, int], Path] = {}
        self.stock_whole: dict[int, str] = {}

    def new(self) -> Path:
        self.number += 1
        return self.folder / f"run{self.number}"

    def reference(self, epochs: int, world: int) -> Path:
        if (epochs, world) not in self.whole:
            folder = self.new()
            assert self.run(folder, epochs=epochs, world=world) == [0] * world, self.log.read_text()[-3000:]
            self.whole[epochs, world] = folder
        return self.whole[epochs, world]

    def start(
        self, folder: Path, *more: str, epochs: int = 3, world: int = 1, prepare: Callable[[], None] | None = None
    ) -> list[BaseProcess]:
        options = ("--num_train_epochs", str(epochs), "--per_device_train_batch_size", str(4 // world), *more)
        return self.forks.training(self.config, folder, *options, world=world, log=self.log, prepare=prepare)

    def run(
        self, folder: Path, *more: str, epochs: int = 3, world: int = 1, prepare: Callable[[], None] | None = None
    ) -> list[int | None]:
        return wait(self.start(folder, *more, epochs=epochs, world=world, prepare=prepare))

    def exact(self, folder: Path, epochs: int = 3, world: int = 1) -> bool:
        """Whether a run has the weights and every logged number of an unbroken one."""
        whole = self.reference(epochs, world)
        return weights(folder) == weights(whole) and logged(folder) == logged(whole)

    def goes_on(self, folder: Path, epochs: int = 3, world: int = 1) -> bool:
        """Whether the same command again brings a broken run to the end of an unbroken one."""
        return self.run(folder, epochs=epochs, world=world) == [0] * world and self.exact(folder, epochs, world)

    def stock(self, folder: Path, *, epochs: int = 3, prepare: Callable[[], None] | None = None) -> BaseProcess:
        return self.forks.start(stock.forked, self.folder, folder, epochs, self.log, prepare)

    def stock_ends(self, folder: Path, epochs: int = 3) -> str:
        """How Trainer continues from what is in the folder: exact, stuck (an error), or silently wrong."""
        if epochs not in self.stock_whole:
            whole = self.new()
            assert wait([self.stock(whole, epochs=epochs)]) == [0], self.log.read_text()[-3000:]
            self.stock_whole[epochs] = weights(whole)
        if wait([self.stock(folder, epochs=epochs)]) != [0]:
            return "stuck"
        return "exact" if weights(folder) == self.stock_whole[epochs] else "silently wrong"


def count(outcomes: Sequence[str]) -> str:
    return ", ".join(f"{number} {name}" for name, number in sorted(Counter(outcomes).items()))


def of(outcomes: Sequence[bool]) -> str:
    return f"{sum(outcomes)} of {len(outcomes)}"


Row = tuple[str, str, str]
