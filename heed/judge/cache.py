"""Every reply that was paid for, so that nothing is asked twice: one line of JSON per request, found by its hash."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from heed.files.hashes import json_sha256
from heed.files.lines import append_line, keep_only, read_kept
from heed.saying import Say


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What a judge wrote, and what it cost; tokens are None where a server does not count them."""

    text: str
    prompt_tokens: int | None
    completion_tokens: int | None
    cut: bool = False
    """It reached its token limit."""
    reasked: bool = False
    """The text answers the second asking; the tokens are those of both."""


def request_key(server: str, body: dict[str, Any]) -> str:
    """SHA-256 of all that determines a reply: who is asked, and the model, messages and parameters of the request.

    The address counts: many servers call whatever they run by the same name.
    """
    return json_sha256([server, body])


class Cache:
    """Replies with a verdict, on disk as soon as they came in. A rerun asks for the others again.

    A process killed while writing leaves a torn last line; it is cut off when the file is opened next.
    """

    def __init__(self, path: Path, *, say: Say) -> None:
        self.path = path
        self.replies: dict[str, Reply] = {}
        self.refused: dict[str, set[str]] = {}
        """Parameters that a server will not take, by server and model."""
        kept = read_kept(path, self._take)
        keep_only(path, kept.lines)
        if kept.damage:
            say(f"{kept.damage}; what it had is asked again")

    def _take(self, entry: dict[str, Any]) -> None:
        if "refused" in entry:
            self.refused.setdefault(entry["server"], set()).add(entry["refused"])
        else:
            key = entry.pop("key")
            self.replies[key] = Reply(**entry)

    def keep(self, key: str, reply: Reply) -> None:
        self.replies[key] = reply
        append_line(self.path, {"key": key, **asdict(reply)})

    def keep_refusal(self, server: str, parameter: str) -> None:
        self.refused.setdefault(server, set()).add(parameter)
        append_line(self.path, {"server": server, "refused": parameter})
