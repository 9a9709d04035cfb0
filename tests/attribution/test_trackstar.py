import numpy as np
import pytest
import torch
from attribution_models import random_docs
from dense_twins import checkpoint_of, damped, inverse_root, mean_token_loss, projected, run_of, site_gradients, stacked

from winnow.attribution.autocorrelation import Autocorrelation
from winnow.attribution.estimators.trackstar import (
    LEAST_MOMENT,
    FittedTrackstar,
    Trackstar,
    factored_roots,
    mixing_share,
    scaled_making,
)
from winnow.attribution.projected import Making, store_gradients
from winnow.attribution.projection import Projection
from winnow.attribution.run import Queries, Settings
from winnow.attribution.sites import find_sites
from winnow.errors import UserError


def _whitened(model, state, docs, projection, scope):
    rows = []
    for doc in docs:
        gradients = site_gradients(model, doc, scope, mean_token_loss)
        for name, site in find_sites(model, scope).items():
            moment = site.matrix({key: entry["exp_avg_sq"].double() for key, entry in state.items()})
            r, c = moment.mean(dim=1), moment.mean(dim=0)
            root = (r / r.mean() + LEAST_MOMENT).sqrt()[:, None] * (c + LEAST_MOMENT * c.mean()).sqrt()
            gradients[name] = gradients[name] / root
        rows.append(projected(gradients, projection))
    return stacked(rows)


@pytest.mark.parametrize(("dimension", "share"), [(3, 0.7), (0, 0.4)])
def test_scores_are_cosines_after_both_inverse_roots(warm_llama, dimension, share):
    model, state = warm_llama
    docs, queries = random_docs(30, seed=3), random_docs(4, seed=4)
    settings = Settings("attention", 0.3, dimension, 2, {"lambda": share})
    found = Trackstar().fit(run_of(docs, checkpoint_of(model, state=state)), settings).score(Queries(queries))
    rows, asked = (_whitened(model, state, some, Projection(dimension, 2), "attention") for some in (docs, queries))
    whitened, queried = [], []
    for name, values in rows.items():
        mixed = share * asked[name].T @ asked[name] / 4 + (1 - share) * values.T @ values / 30
        root = inverse_root(damped(mixed, 0.3))
        whitened.append(values @ root)
        queried.append(asked[name] @ root)
    left, right = np.concatenate(queried, axis=1), np.concatenate(whitened, axis=1)
    left /= np.linalg.norm(left, axis=1, keepdims=True)
    right /= np.linalg.norm(right, axis=1, keepdims=True)
    np.testing.assert_allclose(found, left @ right.T, atol=2e-4)


def test_a_document_has_cosine_one_with_itself_and_orders_change_no_bit(warm_llama):
    model, state = warm_llama
    docs = random_docs(20, seed=3)
    shuffled = np.random.default_rng(0).permutation(20)
    settings = Settings("all", projection=4)
    scores = Trackstar().fit(run_of(docs, checkpoint_of(model, state=state)), settings).score(Queries(docs[:5]))
    np.testing.assert_allclose(np.diagonal(scores), 1.0, atol=1e-5)
    assert (scores.argmax(axis=1) == np.arange(5)).all() and np.abs(scores).max() <= 1 + 1e-5
    run = run_of([docs[place] for place in shuffled], checkpoint_of(model, state=state))
    again = Trackstar().fit(run, settings).score(Queries(docs[4::-1]))
    assert np.array_equal(again, scores[::-1, shuffled])


def test_stored_rows_score_as_rows_in_memory(tmp_path, warm_llama):
    model, state = warm_llama
    docs, queries = random_docs(30, seed=3), Queries(random_docs(3, seed=4))
    checkpoint, settings = checkpoint_of(model, state=state), Settings("blocks", 0.1, 4)
    making = scaled_making(model, checkpoint, settings)
    store = store_gradients(tmp_path / "s", model, docs, making, part_rows=7)
    stored = FittedTrackstar.from_rows(model, making, store, 0.1).score(queries)
    memory = Trackstar().fit(run_of(docs, checkpoint), settings).score(queries)
    np.testing.assert_allclose(stored, memory, atol=2e-3)
    with pytest.raises(UserError, match="another scales"):
        store_gradients(tmp_path / "s", model, docs, Making("blocks", making.projection), part_rows=7)


def test_the_factored_root_of_a_rank_one_moment_is_its_root():
    r, c = torch.rand(6, dtype=torch.float64) + 0.5, torch.rand(4, dtype=torch.float64) + 0.5
    rows, columns = factored_roots(torch.outer(r, c))
    torch.testing.assert_close(torch.outer(rows, columns), torch.outer(r, c).sqrt(), rtol=2e-3, atol=0.0)
    rows, columns = factored_roots(torch.zeros(3, 2))
    assert rows.tolist() == [1.0] * 3 and columns.tolist() == [1.0] * 2


def _autocorrelation(values):
    return {"a": Autocorrelation(torch.diag(torch.tensor(values, dtype=torch.float64)))}


def _blocks(values):
    return {str(part): _autocorrelation(values[part::300].tolist())["a"] for part in range(300)}


def test_the_share_balances_both_spectra_at_the_component():
    documents, queries = _autocorrelation([8.0, 4.0, 3.0, 1.0]), _autocorrelation([9.0, 7.0, 1.0, 0.5])
    assert mixing_share(documents, queries) == pytest.approx(3.0 / (1.0 + 3.0))
    many = _blocks(np.arange(3000.0, 0.0, -1.0))
    assert mixing_share(many, many) == pytest.approx(0.5)
    assert mixing_share(many, _blocks(np.ones(3000))) == pytest.approx(2000.0 / 2001.0)
    assert mixing_share(documents, _autocorrelation([0.0, 0.0])) == 0.5


def test_what_cannot_be_is_refused(llama):
    with pytest.raises(UserError, match="second moments"):
        Trackstar().fit(run_of(random_docs(2), checkpoint_of(llama, state={})), Settings())
    with pytest.raises(UserError, match="between 0 and 1"):
        Trackstar().fit(run_of(random_docs(2), checkpoint_of(llama, state={})), Settings(options={"lambda": 2.0}))
