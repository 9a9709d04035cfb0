import numpy as np
import pytest
from attribution_models import mean_loss, patterned_docs, random_docs
from test_stepping import torch_steps

from winnow.attribution.adamw import AdamW
from winnow.attribution.group_oracle import Rollouts, credit, draw_groups, roll_out
from winnow.attribution.oracle import OneStepOracle


def test_every_document_is_in_every_round_once_whatever_the_order():
    docs = [*random_docs(11), np.array([1])]
    groups = draw_groups(docs, size=4, rounds=3, seed=1)
    assert groups.shape == (9, 4)
    for turn in np.split(groups, 3):
        counts = np.bincount(turn.ravel(), minlength=12)
        assert counts[11] == 0 and set(counts[:11]) == {1, 2} and counts.sum() == 12
        assert all(len(set(group)) == 4 for group in turn)
    turned = draw_groups(docs[::-1], size=4, rounds=3, seed=1)
    assert np.array_equal(11 - turned, groups)


def test_a_rollout_equals_training_a_copy_on_its_documents(warm_llama):
    model, state = warm_llama
    docs, reference = random_docs(6, seed=8), patterned_docs(3, 0, seed=1)
    settings = AdamW(2e-3)
    oracle = OneStepOracle(model, reference, settings, state, reference_tokens=None)
    rollouts = roll_out(oracle, docs, np.array([[0, 1, 2], [5, 4, 3]]))
    for group, losses in zip(rollouts.groups, rollouts.losses, strict=True):
        for step in range(4):
            twin = torch_steps(model, [docs[member] for member in group], settings, state, step)
            own = [float(mean_loss(twin, reference[place]).detach()) for place in oracle.reference_used]
            np.testing.assert_allclose(losses[step], own, atol=3e-5)
    assert np.allclose(rollouts.influence, rollouts.losses[:, 0] - rollouts.losses[:, 3])


@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_credit_recovers_planted_effects_that_momentum_spreads_over_steps(decay):
    generator = np.random.default_rng(0)
    docs = random_docs(30, seed=2)
    groups = draw_groups(docs, size=10, rounds=12, seed=0)
    planted, drift = generator.normal(size=(30, 2)), generator.normal(size=(10, 1))
    losses = np.zeros((len(groups), 11, 2))
    for row, group in enumerate(groups):
        for step in range(10):
            shares = (1 - decay) * decay ** (step - np.arange(step + 1))
            losses[row, step + 1] = losses[row, step] - drift[step] - shares @ planted[group[: step + 1]]
    found = credit(Rollouts(groups, losses), 30, decay)
    # A constant on all documents cannot be told from the drift.
    gap = (found - found.mean(axis=0)) - (planted - planted.mean(axis=0))
    assert np.abs(gap).max() < 0.05


def test_what_follows_a_broken_document_is_not_counted_and_unmeasured_documents_have_no_credit():
    losses = np.random.default_rng(1).normal(size=(3, 4, 1))
    losses[2, 2:] = np.nan
    found = credit(Rollouts(np.array([[0, 1, 2], [2, 1, 0], [3, 4, 5]]), losses), 6, 0.9)
    assert np.isfinite(found[:4]).all() and np.isnan(found[4:]).all()
