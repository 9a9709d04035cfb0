from dataclasses import replace

import numpy as np
import pytest
import torch
from attribution_models import build_llama, patterned_docs, random_docs

from winnow.attribution.estimators import make_estimator
from winnow.attribution.estimators.representer import known_of, represent, similarity
from winnow.attribution.run import Queries, RunCheckpoint, Settings, TrainingRun


def test_importance_and_state_of_a_document_are_those_of_its_own_pass(warm_llama):
    model, _ = warm_llama
    docs = random_docs(5, seed=2)
    found = represent(model, docs)
    for place, doc in enumerate(docs):
        ids = torch.from_numpy(doc)[None]
        with torch.no_grad():
            output = model(input_ids=ids[:, :-1], output_hidden_states=True)
        onehot = torch.nn.functional.one_hot(ids[0, 1:], 64)
        importance = (onehot - torch.softmax(output.logits[0], dim=-1)).mean(dim=0)
        torch.testing.assert_close(found.residuals[place], importance, rtol=1e-4, atol=1e-6)
        state = output.hidden_states[-1][0].double().mean(dim=0)
        torch.testing.assert_close(found.states[place], state, rtol=1e-4, atol=1e-5)


def test_similarity_is_the_product_in_the_metric_times_a_gaussian_of_the_states(warm_llama):
    model, _ = warm_llama
    docs = random_docs(6, seed=2)
    documents, queries = represent(model, docs), represent(model, random_docs(2, seed=3))
    found = similarity(model, queries, docs, known_of(model, docs), 0.04)
    size = documents.residuals.square().mean(dim=0).sqrt()
    metric = 1 / (size + 0.2 * size.mean()) ** 2
    distances = [(documents.states[i] - documents.states[j]).norm() for i in range(6) for j in range(i)]
    width = 2 * sorted(distances)[len(distances) // 2]
    for q in range(2):
        for i in range(6):
            gap = (queries.states[q] - documents.states[i]).norm() / width
            truth = (queries.residuals[q] * metric * documents.residuals[i]).sum() * torch.exp(-(gap**2) / 2)
            assert float(found[q, i]) == pytest.approx(float(truth), rel=1e-4, abs=1e-6)


def test_documents_of_the_querys_kind_score_higher_and_broken_ones_not_at_all(warm_llama):
    docs = [*patterned_docs(4, 0, 1), *patterned_docs(4, 32, 2), np.array([3])]
    run = TrainingRun(
        docs, (RunCheckpoint("first", build_llama, 0.1), RunCheckpoint("last", lambda: warm_llama[0], 0.1))
    )
    scores = make_estimator("representer").fit(run, Settings()).score(Queries(patterned_docs(3, 0, 7)))
    assert (scores[:, :4].mean(axis=1) > scores[:, 4:8].mean(axis=1)).all()
    assert np.isnan(scores[:, 8]).all() and np.isfinite(scores[:, :8]).all()
    turned = replace(run, documents=docs[::-1])
    again = make_estimator("representer").fit(turned, Settings()).score(Queries(patterned_docs(3, 0, 7)))
    np.testing.assert_array_equal(again[:, ::-1], scores)


def test_a_document_whose_predictions_alone_are_broken_leaves_the_others_theirs(warm_llama):
    model, _ = warm_llama
    docs = [np.where(doc == 5, 6, doc) for doc in random_docs(5)]

    def broken(module, arguments, given, output):
        output.logits[given["input_ids"][:, 0] == 5] = torch.nan

    handle = model.register_forward_hook(broken, with_kwargs=True)
    try:
        found = known_of(model, [*docs, np.full(9, 5)])
    finally:
        handle.remove()
    assert found.usable.tolist() == [True] * 5 + [False]
    torch.testing.assert_close(found.size, known_of(model, docs).size)
