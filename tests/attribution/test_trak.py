import numpy as np
import pytest
import torch
from attribution_models import build_llama, random_docs
from dense_twins import checkpoint_of, projected, run_of, site_gradients, stacked, summed_margin

from winnow.attribution.estimators.trak import Trak
from winnow.attribution.projection import Projection
from winnow.attribution.run import Queries, Settings

SCOPE = r"layers\.1\.self_attn\.[vo]_proj"


def _features(model, docs, projection, scope):
    rows = stacked([projected(site_gradients(model, doc, scope, summed_margin), projection) for doc in docs])
    return np.concatenate(list(rows.values()), axis=1)


def _doubts(model, docs):
    found = []
    for doc in docs:
        ids = torch.from_numpy(doc)[None]
        with torch.no_grad():
            p = torch.softmax(model(input_ids=ids[:, :-1]).logits[0], dim=-1).gather(1, ids[0, 1:, None])
        found.append(float(1 - p.mean()))
    return np.array(found)


@pytest.mark.parametrize("dimension", [2, 0])
def test_scores_are_the_averaged_kernel_times_the_averaged_doubt_taken_apart(dimension):
    models = [build_llama(seed=1), build_llama(seed=2)]
    docs, queries = random_docs(24, seed=3), random_docs(3, seed=4)
    settings = Settings(scope=SCOPE, damping=0.2, projection=dimension, seed=5)
    run = run_of(docs, *(checkpoint_of(model, str(place)) for place, model in enumerate(models)))
    found = Trak().fit(run, settings).score(Queries(queries))
    kernel, doubt = np.zeros((3, 24)), np.zeros(24)
    for model in models:
        phi, asked = (_features(model, some, Projection(dimension, 5), SCOPE) for some in (docs, queries))
        gram = phi.T @ phi
        gram += 0.2 * np.trace(gram) / len(gram) * np.eye(len(gram))
        kernel += asked @ np.linalg.solve(gram, phi.T) / 2
        doubt += _doubts(model, docs) / 2
    np.testing.assert_allclose(found, kernel * doubt, rtol=1e-3, atol=1e-4 * np.abs(kernel).max())


def test_a_copy_of_the_query_comes_first_and_broken_documents_have_no_score(llama):
    docs = [*random_docs(25, seed=3, low=20), np.array([4])]
    queries = [docs[7], docs[11], np.array([9])]
    fitted = Trak().fit(run_of(docs, checkpoint_of(llama)), Settings(projection=8))
    scores = fitted.score(Queries(queries))
    assert np.nanargmax(scores[:2], axis=1).tolist() == [7, 11]
    assert np.isnan(scores[2]).all() and np.isnan(scores[:, 25]).all() and np.isfinite(scores[:2, :25]).all()


def test_the_order_of_documents_changes_no_bit(llama):
    docs, queries = random_docs(20, seed=3), Queries(random_docs(2, seed=4))
    shuffled = np.random.default_rng(0).permutation(20)
    settings = Settings(projection=4)
    one = Trak().fit(run_of(docs, checkpoint_of(llama)), settings).score(queries)
    other = Trak().fit(run_of([docs[place] for place in shuffled], checkpoint_of(llama)), settings).score(queries)
    assert np.array_equal(one[:, shuffled], other)
