"""Brittleness, recovery, tail-patch and memorisation: worlds with known effects, and a tiny model that is trained."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from attribution_models import build_llama, patterned_docs, random_docs

from winnow.attribution.adamw import AdamW
from winnow.attribution.retraining import Recipe
from winnow.attribution.validation.brittleness import RANDOM, brittleness
from winnow.attribution.validation.memorisation import memorisation
from winnow.attribution.validation.recovery import recover, suspicions
from winnow.attribution.validation.tail_patch import RANDOM as RANDOM_DOCUMENTS
from winnow.attribution.validation.tail_patch import patching, tail_patch
from winnow.attribution.validation.trained import removal_losses
from winnow.errors import UserError

IDS = np.random.default_rng(0).integers(0, 256, (40, 16), dtype=np.uint8)


class AdditiveWorld:
    """Every document lowers each query's loss by a fixed effect; a seed shifts all losses alike."""

    def __init__(self, queries: int = 3, documents: int = 40) -> None:
        self.effects = np.random.default_rng(1).exponential(1.0, (queries, documents))
        self.trainings = 0

    def retrain(self, keep: np.ndarray, seed: int) -> np.ndarray:
        self.trainings += 1
        return 100.0 + seed - self.effects @ keep


def test_removing_what_truly_helps_raises_the_loss_by_just_those_effects() -> None:
    world = AdditiveWorld()
    found = brittleness(
        {"truth": world.effects, "reversed": -world.effects}, world.retrain, IDS, removals=(1, 5), seeds=(0, 1, 2)
    )
    by_name = {(one.method, one.removed): one for one in found}
    top = np.sort(world.effects, axis=1)[:, ::-1]
    for removed in (1, 5):
        truth, random = by_name["truth", removed], by_name[RANDOM, removed]
        assert np.allclose(truth.rises, top[:, :removed].sum(axis=1)[:, None])
        assert truth.over_random_interval[0] > 0.0
        assert by_name["reversed", removed].over_random < 0.0
        assert 0.0 < random.rise < truth.rise and random.over_random == 0.0
    assert [row["measure"] for row in by_name[RANDOM, 1].to_rows()] == ["loss_rise"]


def test_the_same_removal_is_trained_once() -> None:
    world = AdditiveWorld()
    brittleness({"a": world.effects, "b": 2 * world.effects}, world.retrain, IDS, removals=(3,), seeds=(0, 1))
    assert world.trainings == 2 * (1 + 3 + 3)  # seeds x (all, three queries by either method, three random draws)


def test_queries_in_a_group_are_explained_together() -> None:
    world = AdditiveWorld()
    (truth, _) = brittleness(
        {"truth": world.effects}, world.retrain, IDS, removals=(4,), seeds=(0,), groups=[np.arange(3)]
    )
    assert truth.rises.shape == (1, 1)
    assert truth.rise == pytest.approx(np.sort(world.effects.mean(axis=0))[-4:].sum())


def test_documents_without_a_score_are_not_removed_first() -> None:
    world = AdditiveWorld(queries=1)
    scores = world.effects.copy()
    scores[0, np.argmax(scores)] = np.nan
    (found, _) = brittleness({"x": scores}, world.retrain, IDS, removals=(1,), seeds=(0,))
    assert found.rise == pytest.approx(np.sort(world.effects[0])[-2])


def test_removing_every_document_is_refused() -> None:
    world = AdditiveWorld()
    with pytest.raises(UserError, match="fewer than all 40"):
        brittleness({"x": world.effects}, world.retrain, IDS, removals=(40,), seeds=(0,))


class MaskedWorld:
    """Culprits 0-4 hide culprits 5-9: those show in the influence once the first five are gone."""

    culprits = np.arange(40) < 10
    bad = np.array([True, True, False])

    def train(self, keep: np.ndarray, seed: int) -> np.ndarray:
        return keep

    def losses(self, model: np.ndarray) -> np.ndarray:
        memory = 0.3 * (model & self.culprits).sum()
        return np.array([5.0 - memory, 5.0 - memory, 2.0 + 0.01 * (~model).sum()])

    def influence(self, model: np.ndarray, keep: np.ndarray) -> np.ndarray:
        assert np.array_equal(model, keep)
        shown = np.arange(40) < (5 if model[:5].any() else 10)
        noise = np.random.default_rng(2).normal(0.0, 0.05, (3, 40))
        return noise + np.outer([1.0, 1.0, 0.0], shown) + np.outer([0.0, 0.0, 1.0], np.arange(40) >= 25)


def test_rounds_find_culprits_that_one_pass_cannot() -> None:
    world = MaskedWorld()

    def run(rounds: int, per_round: int):
        return recover(
            "x", world.train, world.losses, world.influence, world.bad, IDS,
            rounds=rounds, per_round=per_round, culprits=world.culprits,
        )  # fmt: skip

    looped, at_once = run(2, 5), run(1, 10)
    assert looped.recall == 1.0 and looped.precision == 1.0 and looped.recovered == pytest.approx(1.0)
    assert at_once.recall < 1.0
    assert [one.caught for one in looped.rounds] == [0, 5, 10]
    assert [one.bad_loss for one in looped.rounds] == pytest.approx([2.0, 3.5, 5.0])
    rows = {(row["measure"], row["at"]): row["value"] for row in looped.to_rows()}
    assert rows["recall", "round 1"] == 0.5 and rows["recall_at_random", ""] == 0.25


def test_a_document_that_helps_everything_is_no_culprit() -> None:
    influence = np.array([[9.0, 5.0, 0.0, 0.0], [9.0, 0.0, 0.0, 0.0]])
    bad, keep = np.array([True, False]), np.array([True, True, True, False])
    found = suspicions(influence, bad, keep)
    assert np.argmax(found) == 1 and found[3] == -np.inf


def test_recovery_without_known_culprits_reports_losses_alone() -> None:
    world = MaskedWorld()
    result = recover("x", world.train, world.losses, world.influence, world.bad, IDS, rounds=1, per_round=5)
    assert {row["measure"] for row in result.to_rows()} == {"bad_loss", "good_loss"}
    assert np.isnan(result.recall) and np.isnan(result.recovered)
    with pytest.raises(UserError, match="bad behaviour"):
        recover("x", world.train, world.losses, world.influence, np.zeros(3, bool), IDS, rounds=1, per_round=1)


RECIPE = Recipe("llama", vocab=64, hidden=16, layers=1, heads=2, context=48, intermediate=24, epochs=6, batch=8)


def test_a_tiny_model_forgets_a_pattern_when_the_documents_that_taught_it_go() -> None:
    documents = [*patterned_docs(10, 0, 1), *patterned_docs(30, 32, 2)]
    queries = patterned_docs(2, 0, 3, noise=0.0)

    train = removal_losses(RECIPE, documents, queries)
    scores = np.tile(np.arange(40) < 10, (2, 1)).astype(float)
    taught, random = brittleness({"taught": scores}, train, IDS, removals=(10,), seeds=(0,), groups=[np.arange(2)])
    assert taught.rise > 2 * max(random.rise, 0.05)


def test_patching_with_the_query_itself_raises_its_answer_more_than_random_documents() -> None:
    torch.manual_seed(0)
    model = build_llama(seed=3)
    queries = patterned_docs(3, 0, 4, noise=0.0)
    documents = [*queries, *random_docs(20, 5)]
    scores = np.eye(3, 23)
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    with patching(model, AdamW(3e-3), None, documents, queries, [(5, 8)] * 3) as patch:
        own, random = tail_patch({"itself": scores}, patch, IDS[:23], depth=1)
        assert np.allclose(patch(0, np.array([0, 1])), patch(0, np.array([0, 1])))
    assert random.method == RANDOM_DOCUMENTS
    assert (own.log_probability > 0.0).all() and own.log_probability.mean() > random.log_probability.mean()
    assert (np.sign(own.probability) == np.sign(own.log_probability)).all()
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())


def test_a_patch_is_the_change_that_an_ordinary_step_makes() -> None:
    queries, documents = patterned_docs(2, 0, 6), random_docs(3, 7)
    span, settings = (4, 9), AdamW(1e-2, clip=1e9, weight_decay=0.0)

    def answer(model: torch.nn.Module, query: np.ndarray) -> float:
        ids = torch.from_numpy(query)[None]
        log_probs = torch.log_softmax(model(input_ids=ids).logits[0].double(), -1)
        return sum(log_probs[place - 1, ids[0, place]].item() for place in range(*span))

    plain = build_llama(seed=4)
    optimizer = torch.optim.AdamW(plain.parameters(), lr=1e-2, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.0)
    before = [answer(plain, query) for query in queries]
    ids = torch.from_numpy(documents[1])[None]
    torch.nn.functional.cross_entropy(plain(input_ids=ids).logits[0, :-1], ids[0, 1:]).backward()
    optimizer.step()
    after = [answer(plain, query) for query in queries]
    with patching(build_llama(seed=4), settings, None, documents, queries, [span] * 2) as patch:
        found = patch(1, np.array([0, 1]))
    for query in range(2):
        assert found[query, 0] == pytest.approx(np.exp(after[query]) - np.exp(before[query]), rel=1e-3)
        assert found[query, 1] == pytest.approx((after[query] - before[query]) / 5, rel=1e-3)


def test_an_answer_that_the_model_does_not_predict_is_refused() -> None:
    docs = random_docs(2, 8)
    with (
        pytest.raises(UserError, match="shorten the text before"),
        patching(build_llama(), AdamW(1e-3), None, docs, docs, [(0, 2)] * 2),
    ):
        pass


def test_memory_is_found_where_it_was_planted_and_grows_with_repetition() -> None:
    generator = np.random.default_rng(3)
    times = np.repeat([0, 1, 2, 4, 7], 60)
    losses_now = (
        5.0 + generator.normal(0.0, 0.3, 300) - np.where(times > 0, 0.2 * (1 + np.log2(np.maximum(times, 1))), 0)
    )
    report = memorisation(losses_now, times)
    assert [one.label for one in report.repetitions] == ["1x", "2x", "3-4x", "5-8x"]
    assert all(one.comparison.high < 0.0 and one.comparison.auc > 0.6 for one in report.repetitions)
    assert report.per_doubling_interval[0] < -0.2 < report.per_doubling_interval[1] < 0.0
    seen = times > 0
    assert report.per_doubling == pytest.approx(np.polyfit(np.log2(times[seen]), losses_now[seen], 1)[0])
    order = generator.permutation(300)
    again = memorisation(losses_now[order], times[order])
    assert again.per_doubling_interval == report.per_doubling_interval
    assert again.all_seen == report.all_seen


def test_text_that_was_easy_before_it_was_read_is_not_taken_for_memory() -> None:
    generator = np.random.default_rng(4)
    times = np.repeat([0, 1, 8], 80)
    before = 6.0 - 1.5 * (times == 8) + generator.normal(0.0, 0.2, 240)  # the repeated ones are templates
    after = before - 1.0 + generator.normal(0.0, 0.05, 240)  # training lowers every loss alike: no memory
    naive, paired = memorisation(after, times), memorisation(after, times, before)
    assert naive.repetitions[-1].comparison.high < -1.0
    assert paired.paired and abs(paired.repetitions[-1].comparison.difference) < 0.05
    assert abs(paired.all_seen.difference) < 0.05 < abs(naive.all_seen.difference)


def test_memorisation_needs_seen_and_unseen_documents() -> None:
    with pytest.raises(UserError, match="some of both"):
        memorisation(np.ones(5), np.ones(5, dtype=int))
    equally = memorisation(np.arange(10.0), np.repeat([0, 1], 5))
    assert np.isnan(equally.per_doubling) and "per_doubling" not in {row["measure"] for row in equally.to_rows()}
