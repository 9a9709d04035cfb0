import copy

import numpy as np
import pytest
import torch
from attribution_models import mean_loss, patterned_docs, random_docs

from winnow.attribution.adamw import AdamW
from winnow.attribution.untrac import Unlearner, source_influence
from winnow.errors import UserError


def _ascend(model, state, docs, settings):
    """The plain way: torch's optimiser without momentum on the negated loss."""
    twin = copy.deepcopy(model)
    optimizer = torch.optim.AdamW(
        twin.parameters(), lr=settings.learning_rate, betas=(0.0, settings.betas[1]), eps=1e-8, weight_decay=0.0
    )
    for name, value in twin.named_parameters():
        moment, step = state[name]["exp_avg_sq"].clone(), state[name]["step"].clone()
        optimizer.state[value] = {"exp_avg": torch.zeros_like(value), "exp_avg_sq": moment, "step": step}
    for doc in docs:
        optimizer.zero_grad()
        (-mean_loss(twin, doc)).backward()
        torch.nn.utils.clip_grad_norm_(twin.parameters(), settings.clip)
        optimizer.step()
    return twin


def test_unlearning_equals_ascending_with_torch(warm_llama):
    model, state = warm_llama
    doc, queries, settings = random_docs(1, seed=1), patterned_docs(3, 0, seed=2), AdamW(1e-3)
    found = Unlearner(model, settings, state, steps=2).influence([doc], queries)
    twin = _ascend(model, state, doc * 2, settings)
    truth = [float((mean_loss(twin, query) - mean_loss(model, query)).detach()) for query in queries]
    np.testing.assert_allclose(found[0], truth, atol=3e-5)


def test_the_source_that_the_queries_come_from_is_found(warm_llama):
    model, state = warm_llama
    sources = {"own": patterned_docs(8, 0, 2), "other": patterned_docs(8, 32, 3), "noise": random_docs(8, 4)}
    unlearner = Unlearner(model, AdamW(1e-3), state, steps=4, batch=2)
    found = source_influence(unlearner, sources, patterned_docs(5, 0, 9))
    assert found.ranking[0] == "own" and (found.influence[found.names.index("own")] > 0).all()
    turned = {name: docs[::-1] for name, docs in sources.items()}
    again = source_influence(unlearner, turned, patterned_docs(5, 0, 9))
    assert np.array_equal(found.influence, again.influence)


def test_documents_that_cannot_be_unlearnt_have_no_influence_and_empty_sources_are_refused(warm_llama):
    unlearner = Unlearner(warm_llama[0], AdamW(1e-3))
    found = unlearner.influence([[np.array([1])], random_docs(1)], [np.array([2]), *random_docs(2, 5)])
    assert np.isnan(found[0]).all() and np.isnan(found[1, 0]) and np.isfinite(found[1, 1:]).all()
    with pytest.raises(UserError, match="source 'thin'"):
        source_influence(unlearner, {"thin": [np.array([1])]}, random_docs(1))
    with pytest.raises(UserError, match="no sources"):
        source_influence(unlearner, {}, random_docs(1))
