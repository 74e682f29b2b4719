"""The proof that what was saved is what was trained: it is loaded again, as a user would."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from heed.config.training import AdapterKeys, ModelKeys
    from heed.tokens.batches import Batch

RELOAD_ROWS = 4
RELOAD_TOLERANCE = 1e-5  # of a logit: the same weights, loaded again, must give the same numbers


def reload_difference(model: Any, loaded: Any, batch: "Batch", folder: Path) -> float:
    """Compare the logits of the trained model and of the one `loaded` from `folder`, on real rows.

    Raises RuntimeError when they differ: the folder would not be what was trained.
    """
    from heed.models.loading import max_logit_difference

    difference = max_logit_difference(model, loaded, batch)
    if not difference <= RELOAD_TOLERANCE:
        raise RuntimeError(
            f"{folder}: the saved model gives different logits from the trained one (by {difference:.1e})"
        )
    return difference


def check_saved_weights(weights: "dict[str, torch.Tensor]", saved: Any, folder: Path) -> None:
    """The same proof for a model split over processes, which can compute only with all of them.

    Raises RuntimeError when a weight is missing or differs from the trained one.
    """
    import torch

    for name, loaded in saved.named_parameters():
        if name not in weights or not torch.equal(weights[name].float().cpu(), loaded.float()):
            raise RuntimeError(f"{folder}: the saved model's {name} is not the trained one's")


def reloaded(model: "ModelKeys", adapter: "AdapterKeys", folder: Path, device: "torch.device") -> Any:
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    from heed.models.loading import load_finished

    unset_hf_deepspeed_config()  # under ZeRO-3 transformers would load this model in parts as well
    return load_finished(
        str(folder),
        dtype=model.dtype,
        bits=adapter.bits,
        attn_implementation=model.attn_implementation,
        device=device,
    )
