from dataclasses import replace

import numpy as np
import pytest
from attribution_models import build_llama, random_docs
from dense_twins import checkpoint_of, mean_token_loss, projected, run_of, site_gradients

from winnow.attribution.adamw import AdamW
from winnow.attribution.estimators.less import Less
from winnow.attribution.projection import Projection
from winnow.attribution.run import Queries, Settings
from winnow.attribution.sites import find_sites
from winnow.errors import UserError


def _unit(rows):
    values = np.stack([np.concatenate(list(row.values())) for row in rows])
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def _twin(model, state, docs, queries, projection, scope, beta1, beta2, epsilon):
    """Cosines ``[Q, N]`` with each query's gradient."""
    sites, stepped = find_sites(model, scope), []
    for doc in docs:
        gradients = site_gradients(model, doc, scope, mean_token_loss)
        for name, site in sites.items():
            m, v = (site.matrix({k: e[key].double() for k, e in state.items()}) for key in ("exp_avg", "exp_avg_sq"))
            g = gradients[name]
            gradients[name] = (beta1 * m + (1 - beta1) * g) / (beta2 * v + (1 - beta2) * g**2 + epsilon).sqrt()
        stepped.append(projected(gradients, projection))
    asked = [projected(site_gradients(model, doc, scope, mean_token_loss), projection) for doc in queries]
    return _unit(asked) @ _unit(stepped).T


@pytest.fixture(scope="module")
def second():
    """Another checkpoint: other weights, and moments of their own."""
    model = build_llama(seed=9)
    state = {}
    for name, value in model.named_parameters():
        first = value.detach() * 0.01
        state[name] = {"exp_avg": first, "exp_avg_sq": first.square() + 1e-5, "step": 5}
    return model, state


@pytest.mark.parametrize("dimension", [5, 0])
def test_scores_are_weighted_cosines_of_the_adam_direction(warm_llama, second, dimension):
    docs, queries = random_docs(12, seed=3), random_docs(4, seed=4)
    options = {"beta1": 0.8, "beta2": 0.9, "epsilon": 1e-7}
    pairs = ((warm_llama, 3.0), (second, 1.0))
    run = run_of(docs, *(checkpoint_of(model, str(rate), rate, state) for (model, state), rate in pairs))
    fitted = Less().fit(run, Settings("mlp", projection=dimension, seed=2, options=options))
    wanted = sum(
        rate / 4.0 * _twin(model, state, docs, queries, Projection(dimension, 2), "mlp", *options.values())
        for (model, state), rate in pairs
    )
    np.testing.assert_allclose(fitted.score(Queries(queries)), wanted, atol=2e-4)


def test_documents_and_queries_without_a_gradient_have_no_score(warm_llama):
    model, state = warm_llama
    docs = [*random_docs(5), np.array([3])]
    fitted = Less().fit(run_of(docs, checkpoint_of(model, state=state)), Settings(projection=4))
    queries = Queries([docs[0], np.array([1]), docs[2]])
    scores = fitted.score(queries)
    assert np.isnan(scores[1]).all() and np.isnan(scores[:, 5]).all() and np.isfinite(scores[[0, 2], :5]).all()


def test_what_cannot_be_is_refused(llama, warm_llama):
    docs = random_docs(3)
    with pytest.raises(UserError, match="optimiser's state"):
        Less().fit(run_of(docs, checkpoint_of(llama)), Settings())
    model, _ = warm_llama
    with pytest.raises(UserError, match="no exp_avg of"):
        Less().fit(run_of(docs, checkpoint_of(model, state={"lm_head.weight": {}})), Settings())


def test_the_decay_rates_that_a_checkpoint_recorded_are_taken(warm_llama):
    model, state = warm_llama
    docs, queries, checkpoint = (
        random_docs(6, seed=3),
        Queries(random_docs(2, seed=4)),
        checkpoint_of(model, state=state),
    )

    def scores(run, **options):
        return Less().fit(run, Settings("mlp", options=options)).score(queries)

    found = scores(run_of(docs, replace(checkpoint, adamw=AdamW(1.0, (0.5, 0.7)))))
    np.testing.assert_array_equal(found, scores(run_of(docs, checkpoint), beta1=0.5, beta2=0.7))
    assert not np.array_equal(found, scores(run_of(docs, checkpoint)))
