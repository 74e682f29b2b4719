"""What will be learned, token by token, for a person to look at before the first step."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from heed.batches import IGNORE

LINE = 160  # characters
GREEN, DIM, PLAIN = "\033[32m", "\033[2m", "\033[0m"


def preview(tokenizer: PreTrainedTokenizerBase, input_ids: Sequence[int], labels: Sequence[int], *, color: bool) -> str:
    """One row as its tokens: learned ones in green, or in [brackets] where there is no color; others end in a bar."""
    shown = []
    for token_id, label in zip(input_ids, labels, strict=True):
        text = str(tokenizer.decode([token_id])).replace("\n", "\\n")
        if color:
            shown.append(f"{GREEN if label != IGNORE else DIM}{text}{PLAIN}{DIM}|{PLAIN}")
        else:
            shown.append(f"[{text}]" if label != IGNORE else f"{text}|")
    return "".join(shown)


def preview_rows(tokenizer: PreTrainedTokenizerBase, examples: Sequence[Mapping[str, Any]], collator: Any) -> str:
    """Some encoded examples exactly as the collator hands them to the model, one after the other."""
    color = sys.stdout.isatty()
    texts = []
    for example in examples:
        batch = collator([example])
        input_ids, labels = batch["input_ids"][0].tolist(), batch["labels"][0].tolist()
        learned = sum(label != IGNORE for label in labels)
        texts.append(
            f"row {example['row_id']}: {len(input_ids)} tokens, {learned} learned\n"
            + preview(tokenizer, input_ids, labels, color=color)
        )
    legend = f"{GREEN}learned{PLAIN}, {DIM}only read{PLAIN}" if color else "[learned], only read|"
    return f"what is learned, token by token: {legend}\n\n" + "\n\n".join(texts)


def one_line(text: str) -> str:
    """Text fit for one line of a terminal: control characters are shown, not obeyed, and a long text is cut.

    The whole text stands in the files of the run.
    """
    shown = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
    return shown if len(shown) <= LINE else shown[:LINE] + " ..."
