"""Worker processes: work shared out in order, ended by one Ctrl-C, and a sentence when one of them is killed."""

import gc
import multiprocessing
import os
import signal
import sys
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from multiprocessing.connection import Connection
from typing import Any, Generic, TypeVar

from heed.errors import UserError

ROWS_A_WORKER = 2000  # with fewer, a process costs more time to start than it saves
MOST = 16

Piece = TypeVar("Piece")
Made = TypeVar("Made")


def what_is_here_stays() -> None:
    """Let the garbage collector start, which `commands.run_script` stopped, and never look at what is there now.

    Imports and rows make a million objects that all stay; looking through them again and again took a fifth of their
    time, and in forked processes it would copy their pages.
    """
    if not gc.isenabled():
        gc.freeze()
        gc.enable()


def how_many(rows: int, num_proc: int | None) -> int:
    """How many processes look at `rows` rows: `num_proc`, or as many as there are CPUs and enough rows for.

    Other processes of a launcher wait meanwhile, so their CPUs count too. 1: this process does it alone.
    """
    if num_proc is None:
        cpus = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
        num_proc = min(cpus, rows // ROWS_A_WORKER, MOST)
    elif num_proc < 1:
        raise UserError(f"num_proc: {num_proc}, but at least one process must tokenize")
    return max(1, min(num_proc, rows))


def in_order(
    work: Callable[[Piece], Made], pieces: Iterable[Piece], count: int, *, task: str
) -> Generator[Made, None, None]:
    """What up to `count` processes make of the pieces, in their order. Each has one piece at a time.

    They are forked, so that nothing is loaded or sent again; a system that cannot fork works in this process alone.
    Raises UserError, which names the `task`, when one of them is killed. Close the generator to end them early.
    """
    if count == 1 or "fork" not in multiprocessing.get_all_start_methods():
        yield from map(work, pieces)
        return
    coming = iter(pieces)
    started: list[Worker[Piece, Made]] = []
    busy: deque[Worker[Piece, Made]] = deque()
    try:
        for piece in islice(coming, count):
            started.append(Worker(work, task))
            started[-1].give(piece)
            busy.append(started[-1])
        while busy:
            worker = busy.popleft()
            made = worker.take()
            for piece in islice(coming, 1):
                worker.give(piece)
                busy.append(worker)
            yield made
    finally:
        for worker in started:
            worker.end()


class Worker(Generic[Piece, Made]):
    """A process at work. (multiprocessing.Pool waits for ever when one of its processes is killed.)"""

    def __init__(self, work: Callable[[Piece], Made], task: str) -> None:
        self.task = task
        fork = multiprocessing.get_context("fork")
        self.pipe, theirs = fork.Pipe()
        self.process = fork.Process(target=serve, args=(theirs, self.pipe, work), daemon=True)
        with interrupts_held_back(), warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # about forking with threads: none of them works here
            self.process.start()
        theirs.close()  # or the pipe would stay open when the process ends

    def give(self, piece: Piece) -> None:
        with self.alive():
            self.pipe.send(piece)

    def take(self) -> Made:
        with self.alive():
            made: Any = self.pipe.recv()
        if isinstance(made, Exception):
            raise made
        found: Made = made
        return found

    @contextmanager
    def alive(self) -> Iterator[None]:
        try:
            yield
        except (EOFError, ConnectionError) as error:
            raise UserError(
                f"a process that {self.task} was killed, as the system does when memory runs out; free some, or give "
                "fewer with num_proc"
            ) from error

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def serve(pipe: Connection, others_end: Connection, work: Callable[[Any], Any]) -> None:
    """In the process: until nobody is at the other end of the pipe."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # not what the parent does about it
    others_end.close()  # forked with the rest: held open here, it would hide that the parent is gone
    with suppress(EOFError, ConnectionError):
        while True:
            piece = pipe.recv()
            try:
                made = work(piece)
            except Exception as error:
                error.add_note(traceback.format_exc())  # which a pipe does not carry
                made = error
            pipe.send(made)


@contextmanager
def interrupts_held_back() -> Iterator[None]:
    """Ctrl-C reaches every process of a terminal; what is started in here leaves it to this one."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
