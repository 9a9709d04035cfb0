"""Scorers that run the model in training, on a tiny one; and weights of a batch's samples by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from winnow.attribution.run import RunCheckpoint
from winnow.attribution.self_influence import self_influence
from winnow.errors import UserError
from winnow.quality.scorers import Documents, ScorerContext, make_scorer
from winnow.quality.scorers.loss_weights import loss_weights
from winnow.quality.scorers.presence import presence_weights
from winnow.quality.scorers.rds_plus import round_robin
from winnow.train.model import ModelConfig, build_model

VOCABULARY = 48


@pytest.fixture(scope="module")
def model():
    return build_model(ModelConfig(VOCABULARY, 16, 2, 2, 24, 32, tie_embeddings=False), seed=3)


def tokens(seed: int, count: int, least: int = 3) -> list[np.ndarray]:
    draw = np.random.default_rng(seed)
    return [draw.integers(0, VOCABULARY, draw.integers(least, 40)) for _ in range(count)]


def documents(seed: int, count: int) -> Documents:
    ids = np.random.default_rng(seed).integers(0, 256, (count, 16), dtype=np.uint8)
    return Documents(ids, tokens=tokens(seed, count))


@pytest.fixture(scope="module")
def given(model) -> ScorerContext:
    second = {
        name: {"exp_avg_sq": torch.rand(weight.shape, generator=torch.manual_seed(1)) + 0.1, "step": 50}
        for name, weight in model.named_parameters()
    }
    checkpoint = RunCheckpoint("c0", lambda: model, learning_rate=1e-3, optimizer=second)
    return ScorerContext(documents(1, 5), documents(2, 12), (checkpoint,), seed=4)


MODEL_SCORERS = [
    ("gradient", {}),
    ("gradient", {"estimator": "ekfac", "scope": "blocks", "curvature_documents": 8}),
    ("presence", {}),
    ("rds_plus", {"aggregate": "max"}),
    ("rds_plus", {"aggregate": "mean", "position_weighted": False}),
    ("perplexity", {"model": "checkpoint", "shape": "low"}),
]


@pytest.mark.parametrize(("name", "options"), MODEL_SCORERS)
def test_a_model_s_score_depends_on_neither_order_nor_the_other_documents(given, name: str, options: dict) -> None:
    asked = documents(5, 9)
    scorer = make_scorer(name, options)
    fitted = scorer.fit(given)
    scored = fitted.score(asked)
    assert scored.valid.all() and scored.flops > 0.0 and not scorer.whole
    back = Documents(asked.doc_ids[::-1].copy(), tokens=asked.tokens[::-1])
    assert np.array_equal(fitted.score(back).values[::-1], scored.values)
    one = Documents(asked.doc_ids[4:5], tokens=lambda start, stop: asked.tokens[4:5])
    assert fitted.score(one).values[0] == scored.values[4]
    turned = Documents(given.reference.doc_ids[::-1].copy(), tokens=given.reference.tokens[::-1])
    pool = Documents(given.sample.doc_ids[::-1].copy(), tokens=given.sample.tokens[::-1])
    again = scorer.fit(ScorerContext(turned, pool, given.checkpoints, seed=4)).score(asked)
    assert np.array_equal(again.values, scored.values)


@pytest.mark.parametrize("name", ["gradient", "presence", "rds_plus", "datamodel"])
def test_a_document_of_one_token_has_a_reason_and_the_others_a_score(given, name: str) -> None:
    ids = np.random.default_rng(8).integers(0, 256, (4, 16), dtype=np.uint8)
    asked = Documents(ids, tokens=[*tokens(8, 3), np.array([1])])
    scored = make_scorer(name, {"projection": 4} if name == "datamodel" else {}).fit(given).score(asked)
    assert scored.valid.tolist() == [True, True, True, False] and scored.reasons[3] is not None


def test_gradient_influence_is_the_fall_of_the_reference_loss(model, given) -> None:
    fitted = make_scorer("gradient", {"estimator": "grad_dot", "scope": "all", "damping": 0.0}).fit(given)
    document = documents(6, 1)
    predicted = fitted.score(document).values[0]

    def loss(doc: np.ndarray) -> torch.Tensor:
        ids = torch.from_numpy(np.asarray(doc[:32], dtype=np.int64))[None]
        return model(input_ids=ids, labels=ids).loss

    def reference_loss() -> float:
        return float(np.mean([float(loss(doc).detach()) for doc in given.reference.tokens]))

    parameters = list(model.parameters())
    gradients = torch.autograd.grad(loss(document.tokens[0]), parameters)
    before, step = reference_loss(), 1e-3
    with torch.no_grad():
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter -= step * gradient
        after = reference_loss()
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter += step * gradient
    assert predicted == pytest.approx((before - after) / step, rel=0.05, abs=1e-3)


def test_operations_are_counted_by_the_passes_that_are_made(model, given) -> None:
    parameters, used = sum(weight.numel() for weight in model.parameters()), 20 + 32
    asked = Documents(np.arange(32, dtype=np.uint8).reshape(2, 16), tokens=[np.arange(20), np.arange(40) % VOCABULARY])
    head = VOCABULARY * 16
    counted = {
        "gradient": used * (2 * parameters + 4 * head),
        "presence": used * 6 * parameters,
        "rds_plus": used * 2 * parameters,
    }
    for name, flops in counted.items():
        assert make_scorer(name).fit(given).score(asked).flops == flops, name


def test_a_copy_of_a_reference_item_is_the_most_like_it_and_of_positive_influence(given) -> None:
    asked = Documents(np.arange(96, dtype=np.uint8).reshape(6, 16), tokens=[given.reference.tokens[2], *tokens(9, 5)])
    assert np.argmax(make_scorer("rds_plus", {"aggregate": "max"}).fit(given).score(asked).values) == 0
    one = ScorerContext(Documents(asked.doc_ids[:1], tokens=asked.tokens[:1]), given.sample, given.checkpoints)
    for name in ("gradient", "datamodel"):
        values = make_scorer(name, {"projection": 8} if name == "datamodel" else {}).fit(one).score(asked).values
        assert np.argmax(values) == 0 and values[0] > 0


def test_a_reference_without_two_tokens_is_refused_or_scores_nothing(given) -> None:
    short = Documents(np.zeros((1, 16), np.uint8), tokens=[np.array([3])])
    context = ScorerContext(short, given.sample, given.checkpoints)
    with pytest.raises(UserError, match="no reference item has two tokens"):
        make_scorer("rds_plus").fit(context)
    with pytest.raises(UserError, match="none of the 1 reference documents"):
        make_scorer("gradient").fit(context)
    scored = make_scorer("datamodel", {"projection": 4}).fit(context).score(documents(5, 3))
    assert not scored.valid.any() and None not in scored.reasons
    assert not make_scorer("rds_plus").fit(given).score(short).valid.any()


def test_needs_follow_the_options(given) -> None:
    assert make_scorer("gradient").needs == {"tokens", "reference", "model", "optimizer"}
    assert make_scorer("gradient", {"estimator": "ekfac"}).needs == {"tokens", "reference", "model", "sample"}
    assert make_scorer("datamodel", {"estimator": "datamodel"}).needs >= {"bank"}
    bare = ScorerContext(given.reference, given.sample, (RunCheckpoint("c0", given.checkpoints[0].load),))
    with pytest.raises(UserError, match="scorer 'gradient' needs the optimiser's state"):
        make_scorer("gradient").fit(bare)
    with pytest.raises(UserError, match="scorer 'datamodel' needs a bank"):
        make_scorer("datamodel", {"estimator": "datamodel"}).fit(given)
    with pytest.raises(UserError, match="cannot stream"):
        make_scorer("gradient", {"estimator": "trak"}).fit(given)


def test_the_datamodel_of_a_bank_gives_its_weights_by_document(given) -> None:
    from winnow.attribution.bank import SubsetBank, query_key

    draw = np.random.default_rng(0)
    truth = np.array([0.4, 0.0, -0.3, 0.1, 0.0, 0.2])
    masks = draw.random((60, 6)) < 0.5
    losses = (5.0 - masks @ truth)[:, None, None] * np.ones((1, 1, 5))
    bank = SubsetBank(masks, losses, tuple(query_key(doc) for doc in given.reference.tokens), "made")
    context = ScorerContext(given.reference, checkpoints=given.checkpoints, bank=bank)
    asked = documents(5, 6)
    options = {"estimator": "datamodel", "per_token": False}
    assert make_scorer("datamodel", options).fit(context).score(asked).values == pytest.approx(truth, abs=0.02)
    lengths = [min(len(document), 32) for document in asked.tokens]
    each = make_scorer("datamodel", options | {"per_token": True}).fit(context).score(asked).values
    assert each == pytest.approx(truth / lengths, abs=0.01)


# -- RDS+ -------------------------------------------------------------------------------------------------------------


def taken_in_turns(similarity: np.ndarray, count: int) -> list[int]:
    """The released loop: each item pops its best document, and loses its turn where it is taken already."""
    queues = [sorted(range(similarity.shape[1]), key=lambda place: -row[place]) for row in similarity]
    chosen: list[int] = []
    while len(chosen) < count:
        for queue in queues:
            if (best := queue.pop(0)) not in chosen:
                chosen.append(best)
    return chosen[:count]


def test_round_robin_is_the_loop_in_which_items_take_turns() -> None:
    similarity = np.random.default_rng(0).normal(size=(4, 30))
    turns = round_robin([similarity[:3], similarity[3:]], 4, np.arange(30))
    assert np.argsort(-turns, kind="stable").tolist() == taken_in_turns(similarity, 30)
    assert len(set(turns.tolist())) == 30


def test_round_robin_by_hand() -> None:
    # Item 0 likes document 2, then 0; item 1 likes 2 as well, then 1. Equal documents go by the order of ties.
    similarity = np.array([[0.5, 0.1, 0.9, np.nan], [0.2, 0.5, 0.9, np.nan]])
    assert np.array_equal(round_robin([similarity], 2, np.arange(4)), [-2, -3, 0, np.nan], equal_nan=True)
    tied = np.array([[1.0, 1.0, 1.0]])
    assert round_robin([tied], 1, np.array([2, 0, 1])).tolist() == [-1, -2, 0]


def test_rds_plus_ranks_all_candidates_together_in_any_order(given) -> None:
    scorer = make_scorer("rds_plus")
    fitted, asked = scorer.fit(given), documents(5, 12)
    values = fitted.score(asked).values
    assert scorer.whole and (values.max() == 0) and len(set(values.tolist())) == 12
    back = Documents(asked.doc_ids[::-1].copy(), tokens=asked.tokens[::-1])
    assert np.array_equal(fitted.score(back).values[::-1], values)


# -- weights of a batch -----------------------------------------------------------------------------------------------


def test_loss_weights_by_hand() -> None:
    losses = np.array([1.0, 2.0, 3.0, 5.0])  # on [-1, 1]: -1, -0.5, 0, 1
    emphasis = {
        "linear_upper": [0.0, 0.5, 1.0, 1.0],
        "upper": [0.0, 0.25, 0.5, 1.0],
        "quadratic": [0.0, 0.75, 1.0, 0.0],
        "extremes": [1.0, 0.5, 0.0, 1.0],
    }
    for strategy, values in emphasis.items():
        raw = np.exp(np.array(values) / 0.5)
        assert loss_weights(losses, strategy, 0.5) == pytest.approx(raw / raw.sum()), strategy


def test_loss_weights_of_equal_losses_are_equal_and_of_broken_ones_zero() -> None:
    assert loss_weights(np.array([2.0, 2.0, 2.0])) == pytest.approx([1 / 3] * 3)
    assert loss_weights(np.array([1.0, np.nan, np.inf, 1.0])) == pytest.approx([0.5, 0, 0, 0.5])
    assert loss_weights(np.array([np.nan, np.nan])).tolist() == [0.0, 0.0]
    assert loss_weights(np.array([])).tolist() == []
    with pytest.raises(UserError, match="no strategy 'mid'; choose one of linear_upper"):
        loss_weights(np.ones(2), "mid")
    with pytest.raises(UserError, match="must be above 0"):
        loss_weights(np.ones(2), temperature=0.0)


def test_presence_weights_by_hand_and_by_the_sign_of_the_temperature() -> None:
    standardised = np.array([-1.0, -1.0, 1.0, 1.0])
    raw = np.exp(0.5 * standardised)
    assert presence_weights(np.array([2.0, 2.0, 6.0, 6.0]), 0.5) == pytest.approx(raw / raw.sum())
    assert np.argmax(presence_weights(np.array([1.0, 9.0, 3.0]), 1.0)) == 1
    assert np.argmax(presence_weights(np.array([1.0, 9.0, 3.0]), -1.0)) == 0
    assert presence_weights(np.array([3.0, np.nan, 3.0]), 1.0) == pytest.approx([0.5, 0.0, 0.5])
    assert presence_weights(np.array([0.0, 1e6]), 800.0) == pytest.approx([0.0, 1.0])


def test_presence_scores_are_standardised_against_the_pool(model, given) -> None:
    fitted = make_scorer("presence", {"temperature": 2.0}).fit(given)
    values = fitted.score(given.sample).values
    assert values.mean() == pytest.approx(0.0, abs=1e-9) and values.std() == pytest.approx(2.0)
    assert np.argmax(values) == np.argmax(self_influence(model, given.sample.tokens, "blocks"))
