"""Examples to tensors: padded batches whose labels come from lengths, never from comparing ids."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

LossOn = Literal["response", "all"]
IGNORE = -100  # torch's cross_entropy passes over targets with this value


@dataclass(frozen=True, kw_only=True)
class PaddingCollator:
    """Pads a batch on the right with EOS.

    A complete response ends in its own EOS, which is learned; the EOS behind it are padding, and their labels are
    -100. So are those of the prompt under `loss_on="response"`. Labels stand at the place of their own token: the
    shift by one is the loss's (`trainer.token_nll`), as everywhere in transformers.
    """

    pad_token_id: int
    loss_on: LossOn

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Returns input_ids, attention_mask and labels, each int64 of shape (examples, longest example)."""
        lengths = [len(example["prompt_ids"]) + len(example["response_ids"]) for example in examples]
        shape = (len(examples), max(lengths))
        input_ids = torch.full(shape, self.pad_token_id)
        attention_mask = torch.zeros(shape, dtype=torch.long)
        labels = torch.full(shape, IGNORE)
        for row, (example, length) in enumerate(zip(examples, lengths, strict=True)):
            ids = torch.tensor([*example["prompt_ids"], *example["response_ids"]])
            input_ids[row, :length] = ids
            attention_mask[row, :length] = 1
            # The first token of a row has nothing before it to be predicted from.
            first = 1 if self.loss_on == "all" else max(1, len(example["prompt_ids"]))
            labels[row, first:length] = ids[first:]
        return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}
