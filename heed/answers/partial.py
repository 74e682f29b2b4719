"""What a model wrote, and how a run that was interrupted keeps it."""

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from heed.files import run_folder
from heed.files.lines import read_kept, write_line
from heed.saying import Say

SYNC_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class Response:
    """What a model wrote. `text` is decoded from the ids it generated, up to the stop id; nothing is searched for."""

    text: str
    finish_reason: Literal["stop", "length", "content_filter"] | None
    """`content_filter` comes only from servers, and so does None: nobody knows whether the answer is whole."""
    prompt_tokens: int | None
    """None where a server does not say; the same for the next."""
    response_tokens: int | None
    """Generated ids, the stop id included."""
    seconds: float
    """The answer's share of the time; each engine says what that is."""


OnResponse = Callable[[int, Response], object]
"""Receives the row's index and its response as soon as there is one."""


def resumed(
    path: Path,
    keys: Sequence[str],
    answer: Callable[[list[int], OnResponse], object],
    *,
    write: Callable[[list[Response]], object],
    on_response: OnResponse = lambda index, response: None,
    say: Say = print,
) -> list[Response]:
    """A response for each of `keys`, in order; those that an earlier, interrupted run left in `path` are taken from it.

    `answer` is given the indices of the rows that are missing, and what to call with each response as it is finished:
    that appends it to `path`. A process may be killed at any time; a last line cut in the middle is left out. A
    response is taken only under its own key, which `row_keys` makes of all that it depends on. `write` puts the whole
    file in place; `path` stays for whoever asks next, and is removed by the caller once nothing is left to be asked.
    """
    lines = read_kept(path, lambda value: (value.pop("key"), Response(**value)))
    kept = dict(lines.values)
    found = {index: kept[key] for index, key in enumerate(keys) if key in kept}
    missing = [index for index in range(len(keys)) if index not in found]
    if kept or lines.damage:
        other = len(kept) - len({keys[index] for index in found})
        parts = [f"{len(found)} of {len(keys)} answers are taken from an interrupted run ({path})"]
        parts += [f"{other} of another request are left out"] if other else []
        parts += [lines.damage] if lines.damage else []
        say("; ".join(parts))
    for index, response in found.items():
        on_response(index, response)
    if missing:
        with PartialFile(path, {keys[index]: response for index, response in found.items()}) as partial:

            def keep(index: int, response: Response) -> None:
                partial.append(keys[index], response)
                found[index] = response
                on_response(index, response)

            answer(missing, keep)
    responses = [found[index] for index in range(len(keys))]
    write(responses)
    return responses


def partial_file(file: Path) -> Path:
    """Where responses are kept until `file` and all else that was asked for is whole."""
    return file.with_suffix(".partial.jsonl")


def row_keys(request: Mapping[str, Any], prompts: Sequence[Any]) -> list[str]:
    """A fingerprint for each row, of its prompt (ids or messages) and of the request that all rows share.

    The request names whatever else answers depend on: the model's hash, the contract, max_new_tokens, dtype, and
    for an endpoint its address; not the local engine, since all of them give the same text.
    """
    shared = json.dumps(request, sort_keys=True, default=str)
    texts = (json.dumps(prompt, sort_keys=True) for prompt in prompts)
    return [hashlib.sha256(f"{shared}\n{text}".encode()).hexdigest() for text in texts]


class PartialFile:
    """The file that finished responses are appended to; begins with those that are `kept` from an earlier run."""

    def __init__(self, path: Path, kept: Mapping[str, Response]) -> None:
        run_folder.write_lines(path, (keyed(key, response) for key, response in kept.items()))
        self.path, self.file = path, path.open("ab", buffering=0)
        self.synced = time.monotonic()

    def append(self, key: str, response: Response) -> None:
        """Handed to the system at once, which a killed process cannot undo; on disk within a second or so."""
        write_line(self.file, self.path, keyed(key, response))
        if time.monotonic() - self.synced > SYNC_SECONDS:
            os.fsync(self.file.fileno())
            self.synced = time.monotonic()

    def __enter__(self) -> "PartialFile":
        return self

    def __exit__(self, *error: object) -> None:
        os.fsync(self.file.fileno())
        nothing = self.file.tell() == 0
        self.file.close()
        if nothing:  # the first request was refused: there is nothing to continue from
            self.path.unlink()


def keyed(key: str, response: Response) -> dict[str, Any]:
    return {"key": key} | asdict(response)
