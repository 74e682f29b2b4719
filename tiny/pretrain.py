"""How the tiny model learns to read: a small GPT-2, taught next-token prediction on packed documents."""

import logging
import math
import time

import torch
from transformers import GPT2Config, GPT2LMHeadModel

log = logging.getLogger(__name__)

POSITIONS = 256
BATCH = 4
LEARNING_RATE = 2.0e-3
WARMUP = 100
SEED = 0


def new_model(*, vocabulary: int, end: int) -> GPT2LMHeadModel:
    """An untrained model of 2.2 million parameters."""
    torch.manual_seed(SEED)
    config = GPT2Config(
        vocab_size=vocabulary,
        n_positions=POSITIONS,
        n_embd=192,
        n_layer=4,
        n_head=6,
        activation_function="gelu_pytorch_tanh",  # gelu_new, computed in one step
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=end,
        eos_token_id=end,
    )
    return GPT2LMHeadModel(config)


def pack(documents: list[list[int]], *, end: int) -> torch.Tensor:
    """Batches of full rows, (batch, row, token): documents end to end, each closed by the end token."""
    stream = [token for document in documents for token in [*document, end]]
    count = len(stream) // (BATCH * POSITIONS)
    return torch.tensor(stream[: count * BATCH * POSITIONS]).view(count, BATCH, POSITIONS)


def pretrain(model: GPT2LMHeadModel, batches: torch.Tensor) -> None:
    """Go through the batches once, in order, with a learning rate that ends at nothing."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.1, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, len(batches)))
    began = time.monotonic()
    model.train()
    for step, batch in enumerate(batches):
        loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 100 == 0 or step == len(batches) - 1:
            seconds = time.monotonic() - began
            log.info("step %d of %d, loss %.3f, %.0f s", step, len(batches), loss.item(), seconds)


def _rate(step: int, steps: int) -> float:
    """The share of the peak learning rate at a step."""
    warm = min(1.0, (step + 1) / WARMUP)
    return warm * 0.5 * (1 + math.cos(math.pi * step / steps))
