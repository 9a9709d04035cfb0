import numpy as np
import pytest
import torch
from attribution_models import build_llama, mean_loss, own_gradients, patterned_docs, random_docs

from winnow.attribution.adamw import AdamW
from winnow.attribution.correlation import spearman
from winnow.attribution.estimators import estimator_names
from winnow.attribution.influence import GradientInfluence
from winnow.attribution.oracle import OneStepOracle
from winnow.attribution.scores import LOSS_NOT_FINITE, TOO_SHORT
from winnow.errors import UserError

METHODS = ("ekfac", "grad_dot", "adam_dot")


def test_the_methods_are_found_by_name():
    assert set(METHODS) <= set(estimator_names())


@pytest.mark.parametrize("method", ["ekfac", "grad_dot"])
def test_the_streamed_score_equals_the_explicit_product_with_each_documents_gradient(llama, method):
    docs, reference = random_docs(8), random_docs(5, seed=9)
    scorer = GradientInfluence.fit(llama, reference, docs, method=method, scope="blocks+head")
    scores = scorer.score(docs)
    for index, doc in enumerate(docs):
        own = own_gradients(llama, doc)
        explicit = sum(float((v.double() * own[f"{name}.weight"]).sum()) for name, v in scorer.directions.items())
        assert scores.influence[index] == pytest.approx(explicit, rel=1e-3, abs=1e-5 * np.abs(scores.influence).max())
        assert scores.loss[index] == pytest.approx(float(mean_loss(llama, doc).detach()), rel=1e-5)


def test_the_grad_dot_direction_is_the_gradient_of_the_mean_reference_loss(llama):
    reference = random_docs(5, seed=9)
    scorer = GradientInfluence.fit(llama, reference, method="grad_dot")
    own = [own_gradients(llama, doc) for doc in reference]
    for name, direction in scorer.directions.items():
        expected = torch.stack([gradients[f"{name}.weight"] for gradients in own]).mean(dim=0)
        torch.testing.assert_close(direction, expected, rtol=1e-4, atol=1e-6)
    assert scorer.reference_loss == pytest.approx(
        np.mean([float(mean_loss(llama, d).detach()) for d in reference]), rel=1e-5
    )


def test_scores_are_equal_to_the_bit_in_any_order_and_any_company(llama):
    docs, reference = random_docs(40), random_docs(5, seed=9)
    scorer = GradientInfluence.fit(llama, reference, docs[:10])
    whole = scorer.score(docs)
    order = np.random.default_rng(0).permutation(len(docs))
    turned = scorer.score([docs[index] for index in order])
    assert np.array_equal(turned.influence, whole.influence[order]) and np.array_equal(turned.loss, whole.loss[order])
    for part in (slice(0, 1), slice(7, 20)):
        assert np.array_equal(scorer.score(docs[part]).influence, whole.influence[part])
    again = GradientInfluence.fit(llama, reference[::-1], docs[9::-1])
    assert np.array_equal(again.score(docs).influence, whole.influence)


def test_a_document_longer_than_the_context_counts_with_its_first_window_and_says_so(llama):
    long = np.arange(200) % 64
    scorer = GradientInfluence.fit(llama, random_docs(3), method="grad_dot")
    scores = scorer.score([long, long[:64]])
    assert scores.truncated.tolist() == [True, False] and scores.tokens.tolist() == [64, 64]
    assert scores.influence[0] == scores.influence[1]


@pytest.mark.parametrize("method", METHODS)
def test_a_copy_of_the_reference_is_helpful_and_ranks_first_and_agrees_with_the_oracle(warm_llama, method):
    model, state = warm_llama
    reference = patterned_docs(1, 0, seed=50)
    others = [*patterned_docs(8, 32, seed=51), *random_docs(8, seed=52)]
    scorer = GradientInfluence.fit(model, reference, others, method=method, optimizer_state=state)
    scores = scorer.score([*others, reference[0]])
    assert scores.influence[-1] > 0
    assert np.argmax(scores.influence) == len(others)
    oracle = OneStepOracle(model, reference, AdamW(1e-3), state)
    assert oracle.probe(reference).influence[0] - oracle.drift > 0


@pytest.mark.parametrize("method", METHODS)
def test_gradient_influence_ranks_as_the_one_step_oracle_does(warm_llama, method):
    model, state = warm_llama
    reference = patterned_docs(12, 0, seed=60)
    docs = [*patterned_docs(16, 0, seed=61, noise=0.4), *patterned_docs(16, 32, seed=62), *random_docs(16, seed=63)]
    scores = GradientInfluence.fit(model, reference, docs, method=method, optimizer_state=state).score(docs)
    probes = OneStepOracle(model, reference, AdamW(1e-3), state).probe(docs)
    assert spearman(scores.influence, probes.influence) > 0.5


def test_a_harmful_document_scores_below_zero(warm_llama):
    model, _ = warm_llama
    reference = patterned_docs(4, 0, seed=70, noise=0.0)
    harmful = [doc[::-1] for doc in reference]  # after every token, the wrong neighbour
    scorer = GradientInfluence.fit(model, reference, method="grad_dot")
    assert (scorer.score(harmful).influence < scorer.score(reference).influence).all()
    before = np.mean([float(mean_loss(model, doc).detach()) for doc in reference])
    worst = min(harmful, key=lambda doc: scorer.score([doc]).influence[0])
    assert scorer.score([worst]).influence[0] < 0
    gradients = own_gradients(model, worst)
    with torch.no_grad():
        kept = {name: value.clone() for name, value in model.named_parameters()}
        for name in scorer.directions:
            model.get_parameter(f"{name}.weight").sub_(1e-3 * gradients[f"{name}.weight"])
        after = np.mean([float(mean_loss(model, doc)) for doc in reference])
        for name, value in model.named_parameters():
            value.copy_(kept[name])
    model.zero_grad()
    assert after > before


def test_documents_that_cannot_be_scored_are_recorded_and_disturb_no_other(llama):
    with torch.no_grad():
        llama.get_input_embeddings().weight[7] = float("nan")
    sound = [np.where(doc == 7, 8, doc) for doc in random_docs(6)]
    scorer = GradientInfluence.fit(llama, [*sound[:2], np.array([7, 7])], [*sound, np.array([7, 1, 2])])
    assert scorer.reference_excluded == 1 and scorer.curvature.excluded == 1
    mixed = scorer.score([sound[0], np.array([1, 7, 2]), np.array([4]), np.array([], dtype=int), *sound[1:]])
    assert mixed.reason[:4] == (None, LOSS_NOT_FINITE, TOO_SHORT, TOO_SHORT)
    assert mixed.excluded() == {LOSS_NOT_FINITE: 1, TOO_SHORT: 2}
    assert np.array_equal(mixed.influence[mixed.valid], scorer.score(sound).influence)
    table = mixed.to_arrow()
    assert table["influence"].null_count == 3 and table["reason"].null_count == 6


def test_no_documents_give_no_scores(llama):
    scores = GradientInfluence.fit(llama, random_docs(2), method="grad_dot").score([])
    assert len(scores) == 0 and scores.to_arrow().num_rows == 0


def test_what_is_missing_is_named(llama):
    docs = random_docs(3)
    with pytest.raises(UserError, match="'magic' is unknown"):
        GradientInfluence.fit(llama, docs, method="magic")
    with pytest.raises(UserError, match="needs curvature_docs"):
        GradientInfluence.fit(llama, docs)
    with pytest.raises(UserError, match="no exp_avg_sq"):
        GradientInfluence.fit(llama, docs, method="adam_dot")
    with pytest.raises(UserError, match="none of the 1 reference documents"):
        GradientInfluence.fit(llama, [np.array([1])], method="grad_dot")
    with pytest.raises(UserError, match="outside the model's vocabulary"):
        GradientInfluence.fit(llama, [np.array([1, 900])], method="grad_dot")


def test_a_tied_model_is_scored_in_its_blocks():
    model = build_llama(tied=True)
    scores = GradientInfluence.fit(model, random_docs(3), method="grad_dot").score(random_docs(4, seed=2))
    assert scores.valid.all()
