"""What a model has lost of its language: how well it predicts plain text, compared with the model it started from."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from heed.errors import UserError
from heed.evaluation.kept import Evaluation
from heed.files import run_folder
from heed.files.hashes import file_sha256
from heed.measure.intervals import ratio_estimate
from heed.measure.measurements import HEED
from heed.measure.rows import Row, measured
from heed.runs.finished import from_here, setting
from heed.saying import Say
from heed.shipped import SHIPPED

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

GENERAL = SHIPPED / "data" / "plain_text.txt"
MOST = 1000  # lines
# metric -> what it is per, and how many nats are one of it
SIZES = {"loss_per_token": ("tokens", 1.0), "bits_per_byte": ("bytes", math.log(2))}


def read_texts(path: Path, say: Say) -> list[str]:
    """The lines of a file that are not empty, 1,000 at most. Raises UserError for a file that has none."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").split("\n") if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"forgetting: {path} cannot be read as text ({error}); give a UTF-8 file with a text on each line"
        ) from error
    if not lines:
        raise UserError(f"forgetting: {path} has no text; give a UTF-8 file with a text on each line")
    if len(lines) > MOST:
        say(f"forgetting: the first {MOST:,} of {len(lines):,} lines of {path} are read")
    return lines[:MOST]


def text_to_read(named: str | None, run: Path | None, say: Say) -> Path:
    """The file that the evaluation or the run names, or the general one. Raises UserError if it has no text."""
    if named is None and run is not None:
        told = setting(run, "forgetting")
        named = from_here(run, told) if told is not None else None
    path = Path(named) if named is not None else GENERAL
    read_texts(path, say)
    return path


def measure_texts(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str]
) -> list[dict[str, float]]:
    """Of each text: the negative log-likelihood in nats, and the tokens and bytes that it covers.

    Every token counts: the first is predicted from BOS, or EOS where there is none. A text that is longer than the
    model's positions is read in pieces.
    """
    import torch

    from heed.models.likelihood import nll_of
    from heed.models.loading import context_length

    first = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    reach = min(context_length(model) - 1, 1024)
    found = []
    for text in texts:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        nats = 0.0
        for start in range(0, len(ids), reach):
            row = torch.tensor([[first, *ids[start : start + reach]]], device=model.device)
            with torch.no_grad():
                logits = model(input_ids=row, attention_mask=torch.ones_like(row), use_cache=False).logits[0, :-1]
            nats += nll_of(logits.float(), row[0, 1:]).sum().item()
        found.append({"nats": nats, "tokens": len(ids), "bytes": len(text.encode())})
    return found


def keep_texts(folder: Path, name: str, path: Path, found: Sequence[dict[str, float]]) -> None:
    """Write what only the model could tell into forgetting.jsonl, replacing what was there of this system."""
    file = folder / run_folder.FORGETTING_FILE
    kept = [line for line in run_folder.read_lines(file) if line["name"] != name]
    shown = path.relative_to(SHIPPED) if path.is_relative_to(SHIPPED) else path
    facts = {"name": name, "text": str(shown), "text_sha256": file_sha256(path)}
    lines = [facts | {"line": place} | each for place, each in enumerate(found)]
    run_folder.write_lines(file, [*kept, *lines])


def forgetting_rows(folder: Path, evaluation: Evaluation) -> list[Row]:
    """Loss per token and bits per byte of both models, and the difference over the same texts."""
    lines = run_folder.read_lines(folder / run_folder.FORGETTING_FILE)
    of = {name: [line for line in lines if line["name"] == name] for name in evaluation.systems}
    after = of.pop(evaluation.evaluated)
    other, before = next(((name, found) for name, found in of.items() if found), ("", []))
    if not after or [each["text_sha256"] for each in after] != [each["text_sha256"] for each in before]:
        return []
    text = {"data": after[0]["text"], "data_sha256": after[0]["text_sha256"], "limit": None}
    rows = []
    for metric, (size, unit) in SIZES.items():
        sizes = [each[size] for each in after]
        if sizes != [each[size] for each in before]:
            continue  # with another tokenizer a loss per token would be of other tokens
        theirs, ours = ([each["nats"] / unit for each in found] for found in (before, after))
        change = ratio_estimate([mine - yours for mine, yours in zip(ours, theirs, strict=True)], sizes)
        for name, parts, details in (
            (other, theirs, {}),
            (evaluation.evaluated, ours, {"difference_from_base": asdict(change)}),
        ):
            rows.append(
                Row(
                    system="forgetting",
                    task=after[0]["text"],
                    metric=metric,
                    **measured(ratio_estimate(parts, sizes)),
                    n_full=len(parts),
                    name=name,
                    library=HEED,
                    higher_is_better=False,
                    details=details,
                    **(evaluation.provenance(name) | text),
                )
            )
    return rows
