"""What must be right on a GPU before a timing means anything."""

import tempfile
from collections.abc import Callable
from typing import Any

import torch
from transformers import TrainerCallback, TrainingArguments

from bench.jobs import Job
from bench.models import build
from bench.rows import answered
from bench.variants import VARIANTS, arguments, heed_trainer

PREFIX = 24
OWN = (9, 40, 1)  # tokens of three examples after a prefix that they share


def varlen_attention_is_bottom_right_causal() -> dict[str, float]:
    """Queries at the end of a longer key see all keys up to their own place, and no further.

    A prefix computed once relies on it: its keys come before those of every example. Compared with an explicit mask,
    forward and backward; the other alignment (top left) must give other numbers.
    """
    from torch.nn.attention.varlen import varlen_attn

    torch.manual_seed(0)
    query_lengths = [PREFIX, *OWN]
    key_lengths = [PREFIX, *(PREFIX + length for length in OWN)]
    query, key, value = (
        torch.randn(sum(lengths), 4, 64, device="cuda", dtype=torch.bfloat16, requires_grad=True)
        for lengths in (query_lengths, key_lengths, key_lengths)
    )
    attend: Callable[..., torch.Tensor] = varlen_attn  # type: ignore[assignment]  # no auxiliary outputs are asked for
    output = attend(
        query,
        key,
        value,
        offsets(query_lengths),
        offsets(key_lengths),
        max(query_lengths),
        max(key_lengths),
        window_size=(-1, 0),
    )
    upstream = torch.randn_like(output)
    found = [output, *torch.autograd.grad(output, (query, key, value), upstream)]
    errors = {}
    for name, top_left in (("bottom_right", False), ("top_left", True)):
        exact = masked_attention(query, key, value, query_lengths, key_lengths, top_left=top_left)
        wanted = [exact, *torch.autograd.grad(exact, (query, key, value), upstream)]
        errors[name] = max(relative_error(a, b) for a, b in zip(found, wanted, strict=True))
    assert errors["bottom_right"] < 0.02 < 0.2 < errors["top_left"], errors
    return errors


def offsets(lengths: list[int]) -> torch.Tensor:
    return torch.tensor([0, *lengths], device="cuda").cumsum(0).to(torch.int32)


def masked_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    query_lengths: list[int],
    key_lengths: list[int],
    *,
    top_left: bool,
) -> torch.Tensor:
    """Softmax attention segment by segment in float32, with an explicit mask."""
    outputs = []
    segments = zip(query.split(query_lengths), key.split(key_lengths), value.split(key_lengths), strict=True)
    for q, k, v in segments:
        scores = torch.einsum("qhd,khd->hqk", q.float(), k.float()) / q.shape[-1] ** 0.5
        seen = torch.ones(len(q), len(k), dtype=torch.bool, device=q.device).tril(0 if top_left else len(k) - len(q))
        weights = scores.masked_fill(~seen, float("-inf")).softmax(-1)
        outputs.append(torch.einsum("hqk,khd->qhd", weights, v.float()))
    return torch.cat(outputs).to(query.dtype)


def relative_error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return ((found.float() - wanted.float()).norm() / wanted.float().norm()).item()


def losses_agree(job: Job, ours: str = "heed", theirs: str = "textbook", *, answers: int = 1) -> dict[str, float]:
    """Two losses on the same batches and weights; a learning rate of 0 keeps the weights.

    With several `answers` to a question, what rows share is a tree: a preamble, and below it the questions.
    """
    rows = answered(job.examples(), answers)
    losses = {name: VARIANTS[name](job, rows).loss for name in (theirs, ours)}
    assert abs(losses[ours] - losses[theirs]) < (1e-4 if job.dtype == "fp32" else 1e-2), losses
    return losses


class NoSynchronization(TrainerCallback):
    """Makes torch raise where the CPU waits for the GPU, from the third step to the end of the sixth."""

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 2:
            torch.cuda.set_sync_debug_mode("error")

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 6:
            torch.cuda.set_sync_debug_mode("default")


def heed_synchronizes(job: Job) -> str:
    """Where HeedTrainer first waits for the GPU between two logs, or "nowhere". It costs speed, not correctness."""
    with tempfile.TemporaryDirectory() as folder:
        args = TrainingArguments(**arguments(job, folder, logging_strategy="no"))
        trainer = heed_trainer(build(job.shape), job.examples(), args, callbacks=[NoSynchronization()])
        try:
            trainer.train()
        except RuntimeError as error:
            if "synchroniz" not in str(error):
                raise
            return place(error)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return "nowhere"


def place(error: BaseException) -> str:
    """The innermost frame of an error."""
    trace = error.__traceback__
    assert trace is not None
    while trace.tb_next is not None:
        trace = trace.tb_next
    code = trace.tb_frame.f_code
    return f"{code.co_qualname}, {'/'.join(code.co_filename.split('/')[-2:])}:{trace.tb_lineno}"
