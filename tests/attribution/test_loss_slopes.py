import pytest
import torch
from torch.nn import functional

from winnow.attribution import capture
from winnow.attribution.capture import losses_and_slopes


def _case(dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    logits = (torch.randn(3, 7, 11, generator=generator) * 4).to(dtype)
    labels = torch.randint(0, 11, (3, 7), generator=generator)
    weights = torch.rand(3, 7, generator=generator)
    weights[1, 4:] = 0.0
    return logits, labels, weights


@pytest.mark.parametrize("at_once", [1, 40, 1 << 18])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_losses_and_slopes_are_those_of_autograd_however_many_positions_are_taken_at_once(monkeypatch, at_once, dtype):
    monkeypatch.setattr(capture, "_CACHED", at_once)
    logits, labels, weights = _case(dtype)
    losses, slopes = losses_and_slopes(logits, labels, weights)
    leaf = logits.clone().requires_grad_()
    wanted = functional.cross_entropy(leaf.float().flatten(0, 1), labels.flatten(), reduction="none").view(3, 7)
    (wanted * weights).sum().backward()
    torch.testing.assert_close(losses, wanted.detach(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(slopes, leaf.grad, rtol=1e-5 if dtype == torch.float32 else 0.01, atol=1e-7)
    assert slopes.dtype == dtype and not slopes[1, 4:].any()


def test_a_loss_beyond_the_smallest_probability_stays_finite_and_a_broken_position_touches_no_other():
    logits, labels, weights = _case()
    sound = losses_and_slopes(logits, labels, weights)
    logits[0, 0] = -300.0
    logits[0, 0, 5], labels[0, 0] = 300.0, 2
    logits[2, 6, 1] = torch.inf
    losses, slopes = losses_and_slopes(logits, labels, weights)
    assert float(losses[0, 0]) == 600.0 and float(slopes[0, 0, 5]) == float(weights[0, 0])
    assert bool(losses[2, 6].isnan()) and bool(slopes[2, 6].isnan().any())
    kept = torch.ones(3, 7, dtype=torch.bool)
    kept[0, 0] = kept[2, 6] = False
    assert torch.equal(losses[kept], sound[0][kept]) and torch.equal(slopes[kept], sound[1][kept])
