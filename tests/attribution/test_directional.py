import numpy as np
import pytest
import torch
from attribution_models import build_gpt2, build_llama, mean_loss, own_gradients, random_docs

from winnow.attribution import directional
from winnow.attribution.directional import query_gradients, score_along
from winnow.attribution.estimators import make_directional
from winnow.attribution.influence import GradientInfluence
from winnow.attribution.persist import load_influence, save_influence
from winnow.attribution.run import Queries, RunCheckpoint, Settings, TrainingRun
from winnow.attribution.scores import LOSS_NOT_FINITE, TOO_SHORT
from winnow.attribution.sites import find_sites
from winnow.errors import UserError

DOCS, QUERIES = random_docs(9), random_docs(3, seed=4)


def _run(model, docs=DOCS):
    return TrainingRun(docs, (RunCheckpoint("last", lambda: model),))


def _explicit(model, queries, docs):
    """Products of whole gradients by ordinary autograd."""
    left, right = ([own_gradients(model, doc) for doc in some] for some in (queries, docs))
    return np.array([[sum(float((q[n].double() * d[n]).sum()) for n in q) for d in right] for q in left])


@pytest.mark.parametrize("build", [build_llama, lambda: build_llama(tied=True), build_gpt2])
@pytest.mark.parametrize("packed", [False, True])
def test_streamed_scores_over_all_parameters_are_products_of_whole_gradients(build, packed):
    model = build()
    directions = query_gradients(model, QUERIES, "all")
    scores = score_along(model, DOCS, directions, "all", packed=packed)
    expected = _explicit(model, QUERIES, DOCS)
    np.testing.assert_allclose(scores.influence, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
    np.testing.assert_allclose(scores.loss, [float(mean_loss(model, doc).detach()) for doc in DOCS], rtol=1e-5)


def test_query_gradients_are_those_of_each_query_alone(llama):
    found = query_gradients(llama, QUERIES, "all")
    sites = find_sites(llama, "all")
    for place, query in enumerate(QUERIES):
        own = own_gradients(llama, query)
        for name, value in found.items():
            torch.testing.assert_close(value[place], sites[name].matrix(own), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_scores_are_equal_to_the_bit_in_any_order_and_any_company(dtype):
    model, docs = build_gpt2(), random_docs(60, seed=8, low=2, high=64)
    directions = query_gradients(model, QUERIES, "all")
    whole = score_along(model, docs, directions, "all", dtype)
    order = np.random.default_rng(0).permutation(len(docs))
    turned = score_along(model, [docs[index] for index in order], directions, "all", dtype)
    assert np.array_equal(turned.influence, whole.influence[:, order])
    assert np.array_equal(turned.loss, whole.loss[order])
    assert np.array_equal(score_along(model, docs[3:6], directions, "all", dtype).influence, whole.influence[:, 3:6])


def test_mixed_precision_scores_rank_as_exact_ones(llama):
    directions = query_gradients(llama, QUERIES)
    exact, mixed = (score_along(llama, DOCS, directions, dtype=dtype).influence for dtype in ("float32", "bfloat16"))
    assert 0 < np.linalg.norm(mixed - exact) < 0.05 * np.linalg.norm(exact)


def test_an_estimator_fitted_to_a_run_scores_queries_by_documents_and_finds_a_query_in_training(llama):
    docs = [*DOCS, QUERIES[1]]
    fitted = make_directional("grad_dot").fit(_run(llama, docs), Settings(scope="all"))
    scores = fitted.score(Queries(QUERIES))
    assert scores.shape == (3, 10) and scores.dtype == np.float64
    assert np.argmax(scores[1]) == 9 and scores[1, 9] > 0
    np.testing.assert_allclose(scores, _explicit(llama, QUERIES, docs), rtol=1e-3, atol=1e-4 * np.abs(scores).max())
    assert np.array_equal(scores, fitted.score(Queries(QUERIES)))


def test_queries_that_do_not_fit_in_memory_at_once_take_turns(llama, monkeypatch):
    fitted = make_directional("ekfac").fit(_run(llama), Settings())
    whole = fitted.score(Queries(QUERIES))
    monkeypatch.setattr(directional, "DIRECTION_BYTES", 1)
    np.testing.assert_allclose(fitted.score(Queries(QUERIES)), whole, rtol=1e-4, atol=1e-5 * np.abs(whole).max())


def test_a_reference_scored_at_once_is_the_mean_of_its_documents_as_queries(llama):
    fitted = make_directional("grad_dot").fit(_run(llama), Settings())
    mean = fitted.score(Queries(QUERIES)).mean(axis=0)
    streamed = GradientInfluence.fit(llama, QUERIES, method="grad_dot").score(DOCS).influence
    np.testing.assert_allclose(streamed, mean, rtol=1e-4, atol=1e-5 * np.abs(mean).max())


def test_broken_documents_and_queries_have_no_score_and_harm_no_other(llama):
    docs = [np.where(doc == 7, 8, doc) for doc in DOCS]
    queries = [np.where(query == 7, 8, query) for query in QUERIES]
    with torch.no_grad():
        llama.get_input_embeddings().weight[7] = float("nan")
    sound = score_along(llama, docs, query_gradients(llama, queries))
    mixed_docs = [docs[0], np.array([1, 7, 2]), np.array([4]), *docs[1:]]
    mixed = score_along(llama, mixed_docs, query_gradients(llama, [queries[0], np.array([7, 1]), *queries[1:]]))
    assert mixed.reason == (None, LOSS_NOT_FINITE, TOO_SHORT, *[None] * 8)
    assert np.isnan(mixed.influence[1]).all() and np.isnan(mixed.influence[:, 1:3]).all()
    kept = mixed.influence[[0, 2, 3]][:, [0, *range(3, 11)]]
    np.testing.assert_allclose(kept, sound.influence, rtol=1e-5, atol=1e-7 * np.abs(kept).max())


def test_a_document_longer_than_the_context_counts_with_its_first_window(llama):
    long = np.arange(200) % 64
    scores = score_along(llama, [long, long[:64]], query_gradients(llama, QUERIES))
    assert scores.truncated.tolist() == [True, False] and scores.tokens.tolist() == [64, 64]
    assert np.array_equal(scores.influence[:, 0], scores.influence[:, 1])


def test_what_is_wrong_with_the_input_is_named(llama):
    with pytest.raises(UserError, match="there is no query"):
        query_gradients(llama, [])
    with pytest.raises(UserError, match="outside the model's vocabulary"):
        query_gradients(llama, [np.array([1, 64])])
    with pytest.raises(UserError, match="outside the model's vocabulary"):
        score_along(llama, [np.array([1, 900])], query_gradients(llama, QUERIES))
    with pytest.raises(UserError, match="do not hold the same layers"):
        score_along(llama, DOCS, query_gradients(llama, QUERIES), "attention")
    with pytest.raises(UserError, match="no documents"):
        make_directional("grad_dot").fit(_run(llama, []), Settings())
    with pytest.raises(UserError, match="needs the run's optimizer"):
        make_directional("adam_dot").fit(_run(llama), Settings())
    with pytest.raises(UserError, match="none of the 1 reference documents"):
        GradientInfluence.fit(llama, [np.array([3])], method="grad_dot")
    with pytest.raises(UserError, match="none of the 0 reference documents"):
        GradientInfluence.fit(llama, [], method="grad_dot")


def test_a_saved_influence_scores_as_before_with_a_tied_weight_too(tmp_path):
    model = build_llama(tied=True)
    fitted = GradientInfluence.fit(model, QUERIES, method="grad_dot", scope="all")
    save_influence(fitted, tmp_path / "influence.safetensors")
    again = load_influence(tmp_path / "influence.safetensors", model)
    assert np.array_equal(again.score(DOCS).influence, fitted.score(DOCS).influence)
    with pytest.raises(UserError, match="not a fitted influence"):
        (tmp_path / "other").write_bytes(b"no")
        load_influence(tmp_path / "other", model)
    with pytest.raises(
        UserError, match=r"influence.safetensors: lm_head has shape none in it .*delete this file and run"
    ):
        load_influence(tmp_path / "influence.safetensors", build_llama(tied=False))
