"""Keys of arena.py."""

from dataclasses import dataclass
from typing import Literal

from heed.config.conditions import either, when
from heed.config.keys import key

LIVE = (when("live", True), when("models"))  # models that are asked here


@dataclass(frozen=True, kw_only=True)
class ArenaConfig:
    """Keys of arena.py. Answers are recorded (run, responses) or live (run with live, models, endpoints)."""

    run: str | None = key(None, help="a run folder: the answers of its base and tuned model, or the models themselves")
    live: bool = key(False, help="ask the run's two models instead of showing their answers", read_when=when("run"))
    responses: dict[str, str] = key({}, help="recorded answers to compare: a name -> its responses.json")
    models: dict[str, str] = key({}, help="models to ask: a name -> run folder, checkpoint, model folder or Hub id")
    endpoints: dict[str, dict[str, str]] = key(
        {}, help="servers to ask: a name -> {base_url: http://.../v1, model: ..., key_variable: environment variable}"
    )
    prompt: str | None = key(
        None,
        help="prompt of models that bring no contract; null: the contract of the first model that does",
        read_when=either(*LIVE),
    )
    dtype: Literal["float32", "bfloat16", "float16"] = key(
        "float32", help="type of the weights", read_when=either(*LIVE)
    )
    max_new_tokens: int = key(256, help="length limit of a live answer", read_when=either(*LIVE, when("endpoints")))
    data: str | None = key(
        None,
        help="file, folder, URL or Hub id with rows to step through; null: the run's test rows, if there is a run",
        read_when=either(*LIVE, when("endpoints")),
    )
    limit: int | None = key(None, help="only the first rows")
    votes: str | None = key(None, help="file that votes are appended to; null: votes.jsonl in the run folder")
    judge: str | None = key(None, help="a judge.jsonl whose pair verdicts are shown on the leaderboard beside people's")
    host: str = key("127.0.0.1", help="address to listen on; any but this machine's own needs HEED_ARENA_PASSWORD")
    port: int = key(7860, help="port to listen on")


@dataclass(frozen=True, kw_only=True)
class RateConfig:
    """Keys of `arena.py rate`."""

    votes: str = key(help="file with the votes")
    judge: str | None = key(None, help="a judge.jsonl whose pair verdicts are rated beside people's votes")
    json: str | None = key(None, help="file to write leaderboards, win rates and agreement to")
    csv: str | None = key(None, help="file to write the votes to, in arena-rank's columns model_a, model_b, winner")


@dataclass(frozen=True, kw_only=True)
class PairsConfig:
    """Keys of `arena.py pairs`."""

    votes: str | None = key(None, help="file with the votes; null: votes.jsonl in the run folder")
    run: str | None = key(None, help="the run whose answers were voted on")
    responses: dict[str, str] = key({}, help="recorded answers that were voted on: a name -> its responses.json")
    judge: str | None = key(None, help="a judge.jsonl whose pair verdicts count where no person has voted")
    out: str = key(help="file to write the pairs to (JSONL), for preference training")
    allow_held_out: list[Literal["test", "validation"]] = key(
        [], help="splits of the run whose rows may be trained on, though it is evaluated on them"
    )
