"""What a prepared set is made by, besides its rows."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from heed.data.records import Record
from heed.data.sources import Source
from heed.data.splits import SPLITS, SplitName, check_shares, split_of_hash
from heed.errors import UserError
from heed.prompts.hashes import digest, tokenizer_digest
from heed.prompts.template import Prompt
from heed.tokens.encoding import Policy


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What decides, besides the rows, what is in the folder."""

    source: Source
    policy: Policy
    prompt: Prompt
    split: str
    shares: Sequence[float]
    source_splits: Mapping[SplitName, str]
    """Our split -> the source's, under split: source."""
    mixture: Mapping[str, float]
    """File name -> how often its training rows count: 2 is twice, 0.5 half of them, by the hash of their content."""

    def splits_of(self, record: Record) -> list[SplitName]:
        """Where a row goes: into one split, or none, or under `source_splits` two."""
        if self.split == "hash":
            return [split_of_hash(record, self.shares)]
        return [ours for ours, theirs in self.source_splits.items() if theirs == record.source_split]

    def weight(self, name: str) -> float:
        """How often the training rows of a file, URL or Hub set count."""
        return self.mixture.get(name, self.mixture.get(Path(name).name, 1.0))


def make_recipe(
    source: Source,
    prompt: Prompt,
    policy: Policy,
    *,
    split: str | None,
    shares: Sequence[float],
    source_splits: Mapping[str, str],
    mixture: Mapping[str, float],
) -> Recipe:
    """Raises UserError for splits that need all rows at once, and for weights that are none."""
    if split not in ("hash", "source"):
        raise UserError(
            "split: a prepared set is split as its rows are read: set split: hash, or split: source with files "
            "named train.*, test.* and validation.*"
        )
    if split == "hash":
        check_shares(shares)
    chosen = cast("dict[SplitName, str]", dict(source_splits) or {name: name for name in SPLITS})
    for ours in chosen:
        if ours not in SPLITS:
            raise UserError(f"source_splits: {ours!r} is not one of {', '.join(SPLITS)}")
    for name, weight in mixture.items():
        if not 0 <= weight <= 100:
            raise UserError(f"mixture: {name}: {weight} is not a weight; give how often its rows count, from 0 to 100")
    return Recipe(
        source=source,
        policy=policy,
        prompt=prompt,
        split=split,
        shares=tuple(shares) if split == "hash" else (),
        source_splits=chosen if split == "source" else {},
        mixture=mixture,
    )


def check_mixture(mixture: Mapping[str, float], names: Sequence[str]) -> None:
    known = {*names, *(Path(name).name for name in names)}
    unknown = [name for name in mixture if name not in known]
    if unknown:
        raise UserError(f"mixture: {unknown[0]!r} is not one of the files ({', '.join(names)})")


def identity(recipe: Recipe) -> dict[str, Any]:
    return {
        **asdict(recipe.source),
        **asdict(recipe.policy),
        "template": digest(recipe.prompt.template),
        "tokenizer": tokenizer_digest(recipe.prompt.tokenizer),
        "split": recipe.split,
        "split_shares": list(recipe.shares),
        "source_splits": dict(recipe.source_splits),
        "mixture": dict(recipe.mixture),
    }


def how_often(record: Record, weight: float) -> int:
    """The whole part of the weight for every row, and one more for a share of rows equal to its fraction."""
    point = int(record.content_hash[16:32], 16) / 2**64  # not the digits that decide its split
    return int(weight) + (point < weight % 1)
