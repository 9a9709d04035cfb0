"""The bank of subset trainings: drawn by hashes, trained once, resumed, the same whoever trains it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from attribution_models import patterned_docs, random_docs

from winnow.attribution.bank import BankPlan, bank_digest, query_key, subset_mask, train_bank
from winnow.attribution.retraining import Recipe, losses, retrain
from winnow.errors import UserError

RECIPE = Recipe("gpt2", vocab=64, hidden=16, layers=1, heads=2, context=32, epochs=2, batch=8, warmup_steps=2)
PLAN = BankPlan(subsets=4, seeds=(0, 1))
DOCS = [doc[:32] for doc in random_docs(20, low=20, high=33)]
QUERIES = [doc[:32] for doc in patterned_docs(3, 0, seed=9)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bank")


@pytest.fixture(scope="module")
def bank(folder: Path):
    return train_bank(folder, DOCS, QUERIES, RECIPE, PLAN)


def test_a_subset_has_its_share_whatever_the_order_of_the_documents() -> None:
    mask = subset_mask(DOCS, PLAN, 2)
    assert mask.sum() == 10
    np.testing.assert_array_equal(subset_mask(DOCS[::-1], PLAN, 2), mask[::-1])
    assert (subset_mask(DOCS, PLAN, 3) != mask).any()
    assert (subset_mask(DOCS, BankPlan(4, seed=1), 2) != mask).any()


def test_the_losses_are_those_of_a_model_trained_on_the_subset(bank) -> None:
    assert bank.losses.shape == (4, 2, 3) and bank.losses.dtype == np.float64
    (stop,) = retrain(RECIPE, [DOCS[index] for index in np.flatnonzero(bank.masks[1])], seed=1)
    np.testing.assert_array_equal(losses(stop.model, QUERIES, 32), bank.losses[1, 1])


def test_seeds_and_subsets_make_a_difference(bank) -> None:
    assert len(np.unique(bank.losses[:, :, 0])) == 8


def test_documents_in_another_order_train_the_same_model(bank) -> None:
    shuffled = [DOCS[index] for index in np.flatnonzero(bank.masks[0])][::-1]
    (stop,) = retrain(RECIPE, shuffled, seed=0)
    np.testing.assert_array_equal(losses(stop.model, QUERIES, 32), bank.losses[0, 0])


def test_a_bank_that_was_interrupted_trains_only_what_it_lacks(bank, folder: Path) -> None:
    (folder / "subset-0002-seed-1.safetensors").unlink()
    done: list[int] = []
    again = train_bank(folder, DOCS, QUERIES, RECIPE, PLAN, progress=lambda count, _: done.append(count))
    assert done == [8]
    np.testing.assert_array_equal(again.losses, bank.losses)


def test_a_bank_grows_without_training_again(bank, folder: Path) -> None:
    done: list[int] = []
    more = BankPlan(subsets=5, seeds=(0, 1))
    grown = train_bank(folder, DOCS, QUERIES, RECIPE, more, progress=lambda count, _: done.append(count))
    assert done == [9, 10]
    np.testing.assert_array_equal(grown.losses[:4], bank.losses)
    np.testing.assert_array_equal(grown.masks[:4], bank.masks)


def test_queries_may_come_in_another_order(bank, folder: Path) -> None:
    turned = train_bank(folder, DOCS, QUERIES[::-1], RECIPE, PLAN)
    np.testing.assert_array_equal(turned.losses, bank.losses[:, :, ::-1])


@pytest.mark.slow
def test_processes_side_by_side_give_the_same_bits(bank, tmp_path: Path) -> None:
    np.testing.assert_array_equal(train_bank(tmp_path, DOCS, QUERIES, RECIPE, PLAN, workers=2).losses, bank.losses)


def test_columns_are_found_by_the_queries_tokens(bank) -> None:
    np.testing.assert_array_equal(bank.columns([QUERIES[2], QUERIES[0]]), [2, 0])
    with pytest.raises(UserError, match="no losses on one of the queries"):
        bank.columns([DOCS[0]])


def test_some_subsets_are_a_bank_too(bank) -> None:
    part = bank.take(np.array([True, False, True, False]))
    np.testing.assert_array_equal(part.losses, bank.losses[[0, 2]])
    np.testing.assert_array_equal(part.masks, bank.masks[[0, 2]])


def test_the_digest_names_what_trainings_depend_on_and_no_order() -> None:
    made = bank_digest(DOCS, QUERIES, RECIPE, PLAN)
    assert bank_digest(DOCS[::-1], QUERIES[::-1], RECIPE, BankPlan(9, seeds=(5,))) == made
    assert bank_digest(DOCS[1:], QUERIES, RECIPE, PLAN) != made
    assert bank_digest(DOCS, QUERIES, RECIPE, BankPlan(4, alpha=0.4)) != made


def test_a_folder_of_another_bank_is_refused(bank, folder: Path) -> None:
    with pytest.raises(UserError, match="holds the bank of other documents"):
        train_bank(folder, DOCS[1:], QUERIES, RECIPE, PLAN)


def test_a_bank_is_not_gone_on_with_by_another_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = BankPlan(subsets=4, seeds=(0,))
    whole = train_bank(tmp_path, DOCS, QUERIES, RECIPE, plan)
    monkeypatch.setattr("winnow.attribution.bank.version", lambda _: "0.1")
    np.testing.assert_array_equal(train_bank(tmp_path, DOCS, QUERIES, RECIPE, plan).losses, whole.losses)
    with pytest.raises(UserError, match=r"and this is 0\.1; delete the folder"):
        train_bank(tmp_path, DOCS, QUERIES, RECIPE, PLAN)


def test_a_broken_part_is_named(bank, folder: Path) -> None:
    path = folder / "subset-0003-seed-0.safetensors"
    kept = path.read_bytes()
    path.write_bytes(b"no tensors")
    with pytest.raises(UserError, match="not the losses of a subset"):
        train_bank(folder, DOCS, QUERIES, RECIPE, PLAN)
    path.write_bytes(kept)


@pytest.mark.parametrize("plan", [BankPlan(2), BankPlan(alpha=1.0), BankPlan(seeds=()), BankPlan(seeds=(1, 1))])
def test_a_plan_that_would_say_nothing_is_refused(plan: BankPlan, tmp_path: Path) -> None:
    with pytest.raises(UserError):
        train_bank(tmp_path, DOCS, QUERIES, RECIPE, plan)


def test_stops_are_states_of_one_training() -> None:
    stops = [(stop.steps, stop.optimizer.step) for stop in retrain(RECIPE, DOCS, 0, stops=3)]
    assert stops == [(1, 1), (2, 3), (2, 5)]
    *_, last = retrain(RECIPE, DOCS, 0, stops=3)
    (whole,) = retrain(RECIPE, DOCS, 0)
    np.testing.assert_array_equal(losses(last.model, QUERIES, 32), losses(whole.model, QUERIES, 32))


def test_a_key_is_that_of_the_tokens_whatever_their_type() -> None:
    assert query_key(np.array([1, 2], np.int32)) == query_key(np.array([1, 2], np.int64))
    assert query_key(np.array([1, 2])) != query_key(np.array([2, 1]))
