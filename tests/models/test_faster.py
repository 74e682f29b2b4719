import pytest
import torch

from heed.models import faster
from world.small_world import MODELS


@pytest.mark.parametrize("family", MODELS)
def test_onednn_scores_as_torch_does_on_an_amd_cpu_only(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, ids = MODELS[family]().eval(), torch.tensor([[5, 6, 7], [8, 9, 10]])
    head = model.get_output_embeddings()
    with torch.no_grad():
        plain = model(ids).logits
        monkeypatch.setattr(faster, "cpu_name", lambda: "AMD EPYC 9R14")
        with faster.onednn_head(model):
            assert "forward" in vars(head)
            torch.testing.assert_close(model(ids).logits, plain, rtol=0, atol=1e-6)
        assert "forward" not in vars(head) and torch.equal(model(ids).logits, plain)
        monkeypatch.setattr(faster, "cpu_name", lambda: "Intel(R) Xeon(R) Platinum 8488C")
        with faster.onednn_head(model):
            assert "forward" not in vars(head)
