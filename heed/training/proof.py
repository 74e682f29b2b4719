"""The proof that what was saved is what was trained: it is loaded again, as a user would."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from heed.training.plan import Plan

RELOAD_ROWS = 4
RELOAD_TOLERANCE = 1e-5  # of a logit: the same weights, loaded again, must give the same numbers


def reload_difference(model: Any, plan: "Plan", folder: Path) -> float:
    """Load the saved model as a user would and compare logits on real rows.

    Raises RuntimeError when they differ: the folder would not be what was trained.
    """
    from heed.models.loading import max_logit_difference

    dataset = plan.encoded["train"].dataset
    batch = plan.padding([dataset[number] for number in range(min(RELOAD_ROWS, len(dataset)))])
    difference = max_logit_difference(model, reloaded(plan, folder, plan.args.device), batch)
    if not difference <= RELOAD_TOLERANCE:
        raise RuntimeError(
            f"{folder}: the saved model gives different logits from the trained one (by {difference:.1e})"
        )
    return difference


def check_saved_weights(weights: "dict[str, torch.Tensor]", plan: "Plan", folder: Path) -> None:
    """The same proof for a model split over processes, which can compute only with all of them.

    Raises RuntimeError when a weight is missing or differs from the trained one.
    """
    import torch

    for name, loaded in reloaded(plan, folder, torch.device("cpu")).named_parameters():
        if name not in weights or not torch.equal(weights[name].float().cpu(), loaded.float()):
            raise RuntimeError(f"{folder}: the saved model's {name} is not the trained one's")


def reloaded(plan: "Plan", folder: Path, device: "torch.device") -> Any:
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    from heed.models.loading import load_finished

    unset_hf_deepspeed_config()  # under ZeRO-3 transformers would load this model in parts as well
    return load_finished(
        str(folder),
        dtype=plan.sft.dtype,
        load_in_4bit=plan.sft.load_in_4bit,
        attn_implementation=plan.sft.attn_implementation,
        device=device,
    )
