"""The network itself; needs PyTorch."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.guards


def test_padding_does_not_change_a_logit() -> None:
    """A window alone and the same window padded give the same logits."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("safetensors")
    from pipeline.guards.encoder import GuardEncoder

    torch.manual_seed(1)
    model = GuardEncoder(17).eval()
    ids = torch.randint(1000, 20000, (2, 20))
    mask = torch.ones_like(ids)
    wide = torch.nn.functional.pad(ids, (0, 30)), torch.nn.functional.pad(mask, (0, 30))
    with torch.inference_mode():
        assert torch.allclose(model(ids, mask), model(*wide), atol=1e-4)


def test_a_document_scores_its_highest_window() -> None:
    """The training loss sees the maximum over windows, as the worker does."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("safetensors")
    import numpy as np

    from pipeline.guards.batches import Batch
    from pipeline.guards.fit import document_logits

    empty = np.zeros((2, 1), np.float32)
    batch = Batch(
        ids=np.ones((3, 4), np.int64),
        mask=np.ones((3, 4), np.int64),
        owner=np.array([0, 0, 1]),
        targets=empty,
        weights=empty,
    )
    found = document_logits(torch.tensor([[1.0], [3.0], [-2.0]]), batch)
    assert found.tolist() == [[3.0], [-2.0]]


def test_an_average_has_the_mean_of_the_members_weights() -> None:
    """Of one member it is that member."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("safetensors")
    from pipeline.guards.encoder import GuardEncoder, averaged

    members = [GuardEncoder(3) for _ in range(2)]
    found = averaged(members).state_dict()
    for name, value in members[0].state_dict().items():
        assert torch.allclose(found[name], (value + members[1].state_dict()[name]) / 2)
        assert torch.equal(averaged(members[:1]).state_dict()[name], value)
