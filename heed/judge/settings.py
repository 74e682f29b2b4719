"""What a judge is told: who it is, how it is asked, and what it may cost."""

from dataclasses import dataclass
from typing import Literal

from heed.errors import UserError


@dataclass(frozen=True, kw_only=True)
class JudgeSettings:
    """The keys of the configuration are these with judge_ in front."""

    backend: Literal["openai", "ollama", "decision"]
    model: str
    base_url: str | None = None
    mode: Literal["score", "pair", "both"] = "score"
    prompt: str = "rubric"
    pair_prompt: str = "pair"
    concurrency: int | None = None
    timeout: float = 120.0
    retries: int = 4
    max_tokens: int = 512
    control_rows: int = 5
    prices: tuple[float, float] | None = None
    """For a million prompt tokens and a million completion tokens."""
    max_cost: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in {"concurrency": 1, "retries": 0, "max_tokens": 1, "control_rows": 1, "max_cost": 0}.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise UserError(f"judge_{name}: {value} is less than {least}")
        if self.timeout <= 0:
            raise UserError(f"judge_timeout: {self.timeout:g} seconds leave no time to answer")
        if self.prices is not None and (len(self.prices) != 2 or min(self.prices) < 0):
            raise UserError(
                f"judge_prices: {list(self.prices)} is not [prompt, completion], each 0 or more per million"
            )
