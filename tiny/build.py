"""Rebuild data/instructions.json, data/tiny_text.txt and models/tiny-gpt2 from the tiny world, byte for byte.

python -m tiny.build              # data, tokenizer and model: 10 to 12 minutes on two CPU threads
python -m tiny.build --data-only  # data and tokenizer: seconds
"""

import argparse
import json
import logging
from pathlib import Path

import torch
from transformers import GenerationConfig, GPT2Tokenizer

from tiny.corpus import PASSES, write_corpus, write_pages, write_pass
from tiny.pretrain import POSITIONS, new_model, pack, pretrain
from tiny.rows import Row, Split, split_rows
from tiny.tokenizer import train_tokenizer
from tiny.world import World, load_world

ROOT = Path(__file__).parent.parent
TEXTS = 60
THREADS = 2  # a sum's order follows the number of threads, and the weights follow the order
# The words around a row in the prompt, so that they cost few tokens; prompts/ says how they are put together.
FRAME = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
)

log = logging.getLogger(__name__)


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--data-only", action="store_true", help="leave the model's weights as they are")
    parser.add_argument("--output", type=Path, default=ROOT, help="the folder of data/ and models/")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    world = load_world()
    split = split_rows(world)
    texts = write_pages(write_corpus(world))
    tokenizer = train_tokenizer([*texts, *_frames(split)], max_length=POSITIONS)
    save_rows(split, arguments.output / "data" / "instructions.json")
    save_plain_text(world, arguments.output / "data" / "tiny_text.txt")
    model_dir = arguments.output / "models" / "tiny-gpt2"
    tokenizer.save_pretrained(model_dir)
    if not arguments.data_only:
        train_model(texts, tokenizer, model_dir)


def save_rows(split: Split, path: Path) -> None:
    rows: list[Row] = [example.row for example in split.in_file_order()]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def save_plain_text(world: World, path: Path) -> None:
    """One more pass over the facts, which the model has not read: the demo's text for `forgetting`, a text a line."""
    documents = write_pass(world, seed=PASSES)[:TEXTS]
    path.write_text("".join(each.text.replace("\n", " ") + "\n" for each in documents), encoding="utf-8")


def train_model(texts: list[str], tokenizer: GPT2Tokenizer, model_dir: Path) -> None:
    """Pretrain on the texts in order and save the weights in half precision."""
    torch.set_num_threads(THREADS)
    torch.use_deterministic_algorithms(True)
    end = tokenizer.eos_token_id
    batches = pack(tokenizer(texts)["input_ids"], end=end)
    model = new_model(vocabulary=len(tokenizer), end=end)
    log.info("%d pages, %d tokens, %d parameters", len(texts), batches.numel(), model.num_parameters())
    pretrain(model, batches)
    model.config.activation_function = "gelu_new"  # GPT-2's name for the function it was trained with
    greedy = {"bos_token_id": end, "eos_token_id": end, "do_sample": False}
    model.generation_config = GenerationConfig.from_dict(greedy)
    torch.nn.Module.half(model)  # the same as model.half(), which has no types
    model.save_pretrained(model_dir)


def _frames(split: Split) -> list[str]:
    """The training rows' instructions in their frame; held-out rows stay out of the vocabulary."""
    return [FRAME.format(instruction=e.row["instruction"], input=e.row["input"]) for e in split.train]


if __name__ == "__main__":
    main()
