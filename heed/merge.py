"""An adapter and its base model as one model folder, for servers that load no adapters.

    python -m heed.merge runs/gpt2_medium_lora merged/gpt2_medium

What is written is loaded again and compared: the same logits, or nothing is left behind.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from heed.errors import UserError, exit_code
from heed.files.run_folder import ADAPTER_FILE, is_adapter
from heed.files.whole_folder import refuse_used, whole_folder
from heed.models import loading
from heed.prompts.template import fetch_contract
from heed.runs.finished import find_run, weight_bits

ROWS, TOKENS = 4, 64  # of the batch whose logits are compared
# Of the largest logit. The adapter's product is added to the weights before instead of to their product: sums are
# rounded otherwise.
TOLERANCE = 1e-4


def merge(adapter: str, output: Path) -> float:
    """Write the merged model, in float32, with its tokenizer and prompt contract; return by how much logits differ.

    Raises UserError for what is not an adapter, for one on 4-bit weights, and for an output folder that is not empty;
    RuntimeError when the merged model computes something else.
    """
    folder = Path(adapter)
    if folder.is_dir() and not is_adapter(folder):
        raise UserError(f"{adapter} is not an adapter: it has no {ADAPTER_FILE}; a whole model needs no merging")
    if bits := weight_bits(find_run(adapter) if folder.is_dir() else None):
        raise UserError(
            f"{adapter} was trained on weights rounded to {bits} bits, so on other weights it would be another model; "
            f"serve it as an adapter with its base in {bits} bits"
        )
    refuse_used(output)
    model = loading.load_finished(adapter)
    if not hasattr(model, "merge_and_unload"):
        raise UserError(f"{adapter} is not an adapter but a whole model, which needs no merging")
    batch = any_batch(model)
    with whole_folder(output, key="output") as staged:
        write(model, adapter, staged)
        # Merging changes the weights of `model` in place, so what the adapter computes is asked of a fresh copy.
        return compare(loading.load_finished(adapter), loading.load_model(str(staged)), batch)


def any_batch(model: Any) -> dict[str, torch.Tensor]:
    """Random tokens: a wrong weight shows in any of them."""
    length = min(TOKENS, loading.context_length(model))
    size = (ROWS, length)
    ids = torch.randint(model.config.vocab_size, size, generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids, "attention_mask": torch.ones(size, dtype=torch.long)}


def write(model: Any, adapter: str, folder: Path) -> None:
    merged = model.merge_and_unload(safe_merge=True)  # safe: refuses what is not finite
    tokenizer, contract = loading.load_tokenizer(adapter), fetch_contract(adapter, None)
    if contract is not None:
        contract.set_stops(merged.generation_config)
    merged.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if contract is not None:
        contract.save(folder)


def compare(tuned: Any, merged: Any, batch: dict[str, torch.Tensor]) -> float:
    """The largest difference of their logits. Raises RuntimeError when it is more than rounding."""
    with torch.no_grad():
        largest = float(tuned.eval()(**batch).logits.abs().max())
    difference = loading.max_logit_difference(tuned, merged, batch)
    if not difference <= TOLERANCE * largest:
        raise RuntimeError(f"the merged model's logits differ by {difference:.1e} (the largest is {largest:.1e})")
    return difference


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m heed.merge", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("adapter", help="a run folder, a checkpoint or a Hub id")
    parser.add_argument("output", type=Path, help="the folder to write; it must be empty or absent")
    words = parser.parse_args(arguments)
    difference = merge(words.adapter, words.output)
    print(f"merged    {words.output}; loaded again, its logits differ by {difference:.1e} at most")


if __name__ == "__main__":
    sys.exit(exit_code(lambda: main(sys.argv[1:])))
