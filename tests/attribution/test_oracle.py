import copy

import numpy as np
import pytest
import torch
from attribution_models import build_llama, mean_loss, patterned_docs, random_docs

from winnow.attribution.adamw import AdamW, optimizer_state
from winnow.attribution.oracle import OneStepOracle
from winnow.attribution.scores import LOSS_NOT_FINITE, TOO_SHORT
from winnow.errors import UserError


def _reload_and_step(model, state, doc, settings):
    """The plain way: a copy of the model, torch's AdamW with the state put in, one step."""
    twin = copy.deepcopy(model)
    named = list(twin.named_parameters())
    exempt = settings.no_decay if settings.no_decay is not None else {name for name, value in named if value.ndim < 2}
    groups = [
        {"params": [value for name, value in named if name not in exempt]},
        {"params": [value for name, value in named if name in exempt], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(
        groups, lr=settings.learning_rate, betas=settings.betas, eps=settings.eps, weight_decay=settings.weight_decay
    )
    for name, value in twin.named_parameters():
        if name in state:
            optimizer.state[value] = {key: tensor.clone() for key, tensor in state[name].items()}
    mean_loss(twin, doc).backward()
    torch.nn.utils.clip_grad_norm_(twin.parameters(), settings.clip)
    optimizer.step()
    return twin


def _mean(model, docs):
    with torch.no_grad():
        return np.mean([float(mean_loss(model, doc)) for doc in docs])


@pytest.mark.parametrize("no_decay", [None, frozenset(), frozenset({"lm_head.weight"})])
@pytest.mark.parametrize("with_state", [True, False])
def test_a_probe_equals_reloading_the_checkpoint_and_stepping_torchs_adamw(warm_llama, with_state, no_decay):
    model, state = warm_llama
    state = state if with_state else {}
    settings = AdamW(2e-3, weight_decay=1.0, clip=0.5, no_decay=no_decay)
    reference, docs = patterned_docs(6, 0, seed=1), [*patterned_docs(3, 0, seed=2), *random_docs(3)]
    oracle = OneStepOracle(model, reference, settings, state)
    probes = oracle.probe(docs)
    for index, doc in enumerate(docs):
        twin = _reload_and_step(model, state, doc, settings)
        stepped = oracle.step(oracle.gradients(doc)[1])
        for name, value in twin.named_parameters():
            # 2e-5 is a hundredth of the step: where a gradient is all rounding, Adam's first step is its sign alone.
            torch.testing.assert_close(stepped[name], value.detach(), rtol=1e-4, atol=2e-5)
        assert probes.influence[index] == pytest.approx(_mean(model, reference) - _mean(twin, reference), abs=2e-5)


def test_probing_leaves_every_parameter_equal_to_the_bit(warm_llama):
    model, state = warm_llama
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    moments = {name: entry["exp_avg"].clone() for name, entry in state.items()}
    OneStepOracle(model, random_docs(4), AdamW(1e-2), state).probe(random_docs(5, seed=3))
    for name, value in model.named_parameters():
        assert torch.equal(value.detach(), before[name]) and value.grad is None and value.requires_grad
        assert torch.equal(state[name]["exp_avg"], moments[name])


def test_a_probe_does_not_depend_on_the_probes_before_it(warm_llama):
    model, state = warm_llama
    docs = random_docs(6)
    oracle = OneStepOracle(model, patterned_docs(4, 0, seed=1), AdamW(1e-3), state)
    forward, backward = oracle.probe(docs), oracle.probe(docs[::-1])
    assert np.array_equal(forward.influence, backward.influence[::-1])


def test_a_state_with_one_step_count_serves_as_the_state_by_parameter(warm_llama):
    model, state = warm_llama
    moments = ({name: entry[key] for name, entry in state.items()} for key in ("exp_avg", "exp_avg_sq"))
    docs = random_docs(3)
    joined = OneStepOracle(model, docs, AdamW(1e-3), optimizer_state(60, *moments)).probe(docs)
    assert np.array_equal(joined.influence, OneStepOracle(model, docs, AdamW(1e-3), state).probe(docs).influence)


def test_the_drift_is_the_step_that_no_document_takes(warm_llama):
    model, state = warm_llama
    still = OneStepOracle(model, random_docs(3), AdamW(1e-3, weight_decay=0.0), {})
    assert still.drift == 0.0
    moving = OneStepOracle(model, random_docs(3), AdamW(1e-3), state)
    assert moving.drift != 0.0


def test_a_document_like_the_reference_helps_more_than_noise(warm_llama):
    model, state = warm_llama
    oracle = OneStepOracle(model, patterned_docs(6, 0, seed=1), AdamW(1e-3), state)
    alike, noise = oracle.probe(patterned_docs(6, 0, seed=2)), oracle.probe(random_docs(6, seed=4))
    assert alike.influence.mean() > noise.influence.mean()
    assert (alike.influence - oracle.drift).mean() > 0


def test_the_reference_is_capped_in_tokens_by_its_own_order(warm_llama):
    model, _ = warm_llama
    docs = random_docs(30)
    oracle = OneStepOracle(model, docs, AdamW(1e-3), reference_tokens=200, seed=5)
    chosen = sorted(tuple(docs[index]) for index in oracle.reference_used)
    assert 0 < sum(map(len, chosen)) <= 200
    turned = OneStepOracle(model, docs[::-1], AdamW(1e-3), reference_tokens=200, seed=5)
    assert chosen == sorted(tuple(docs[::-1][index]) for index in turned.reference_used)
    assert oracle.reference_loss == turned.reference_loss


def test_documents_that_cannot_be_probed_are_recorded():
    model = build_llama()
    with torch.no_grad():
        model.get_input_embeddings().weight[7] = float("nan")
    oracle = OneStepOracle(model, [np.array([1, 2, 3, 4])], AdamW(1e-3))
    probes = oracle.probe([np.array([7, 1, 2]), np.array([1]), np.array([4, 5, 6])])
    assert probes.reason == (LOSS_NOT_FINITE, TOO_SHORT, None)
    assert np.isnan(probes.influence[:2]).all() and np.isfinite(probes.influence[2])


def test_a_state_of_another_model_or_a_broken_reference_is_refused(warm_llama):
    model, state = warm_llama
    wrong = {name: {key: value[:1] if value.ndim else value for key, value in e.items()} for name, e in state.items()}
    with pytest.raises(UserError, match="optimiser state of"):
        OneStepOracle(model, random_docs(2), AdamW(1e-3), wrong)
    with pytest.raises(UserError, match="no reference document"):
        OneStepOracle(model, [np.array([1])], AdamW(1e-3))
    with pytest.raises(UserError, match="takes no step"):
        OneStepOracle(model, random_docs(2), AdamW(0.0))


def test_the_shares_of_reference_documents_average_to_the_influence(warm_llama):
    model, state = warm_llama
    reference, docs = [*patterned_docs(3, 0, seed=1), *random_docs(2, seed=9)], random_docs(3)
    oracle = OneStepOracle(model, reference, AdamW(1e-3), state, reference_tokens=None)
    scores, shares = oracle.probe_each(docs)
    assert sorted(oracle.reference_used) == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(shares.mean(axis=1), scores.influence)
    twin = _reload_and_step(model, state, docs[0], AdamW(1e-3))
    for place, share in zip(oracle.reference_used, shares[0], strict=True):
        assert share == pytest.approx(_mean(model, [reference[place]]) - _mean(twin, [reference[place]]), abs=3e-5)
