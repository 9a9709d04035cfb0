"""What holds for every surrogate: add a method's name to METHODS."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from tests.faults.tiny_world import make_tiny_encoder, sentences
from winnow.attribution.correlation import spearman
from winnow.attribution.surrogates import LOSSES, make_surrogate, surrogate_names
from winnow.attribution.surrogates.files import load_model, save_model
from winnow.attribution.surrogates.interface import Features, Surrogate
from winnow.attribution.surrogates.model import fit_influence_model
from winnow.errors import UserError

METHODS = ("encoder", "grams", "mlp", "ridge", "trees")
NAMES = ("words", "links")
COUNT = 90


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> str:
    return str(make_tiny_encoder(tmp_path_factory.mktemp("encoder") / "tiny"))


@pytest.fixture(scope="module")
def world(encoder) -> tuple[Features, np.ndarray]:
    """Documents whose influence is told by their first word, their vector and a signal."""
    from winnow.embed.encoder import encode, load_encoder

    draw = np.random.default_rng(0)
    texts = [sentences(str(number), 2) for number in range(COUNT)]
    vectors = encode(load_encoder(encoder, "float32", 32), texts)
    signals = np.exp(draw.normal(size=(COUNT, 2)))
    planted = vectors @ draw.normal(size=16) * 3 + np.log(signals[:, 0])
    features = Features(draw.integers(0, 256, (COUNT, 16), dtype=np.uint8), vectors, signals, texts)
    return features, 1e-3 * (5 + planted + 0.1 * draw.normal(size=COUNT))


def make(name: str, encoder: str, loss: str = "squared", seed: int = 0) -> Surrogate:
    return make_surrogate(name, loss, seed=seed, encoder=encoder, max_tokens=32)


def fitted(surrogate, features, targets, **more):
    return fit_influence_model(
        features.ids, features.embeddings, features.signals, targets,
        surrogate=surrogate, signal_names=NAMES, texts=features.texts, **more,
    )  # fmt: skip


def predicted(model, features):
    return model.predict(features.embeddings, features.signals, features.texts)


@pytest.fixture(scope="module")
def models(encoder, world):
    """The model of each method, fitted once."""
    return cache(lambda name: fitted(make(name, encoder), *world))


def test_the_list_names_every_method():
    assert surrogate_names() == METHODS


@pytest.mark.parametrize("name", METHODS)
def test_a_method_recovers_what_is_planted_in_the_unit_of_the_probes_and_comes_back_from_disk(
    name, encoder, world, models, tmp_path
):
    (features, targets), model = world, models(name)
    assert model.spearman > 0.5 and model.spearman_low < model.spearman < model.spearman_high
    found = predicted(model, features)
    assert found.dtype == np.float64 and np.isclose(found.mean(), targets.mean(), rtol=0.05)
    save_model(model, tmp_path / "model")
    loaded = load_model(tmp_path / "model", encoder)
    assert np.array_equal(predicted(loaded, features), found)
    told, again = (
        one.predict_with_uncertainty(features.embeddings, features.signals, features.texts) for one in (model, loaded)
    )
    assert np.array_equal(told.low, again.low) and np.array_equal(told.spread, again.spread, equal_nan=True)
    save_model(loaded, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "model").read_bytes()


@pytest.mark.parametrize("name", METHODS)
def test_neither_the_order_of_the_probes_nor_the_company_of_a_document_changes_a_bit(name, encoder, world, models):
    (features, targets), model = world, models(name)
    found = predicted(model, features)
    alone = [predicted(model, features.take(np.array([row]))) for row in range(3)]
    assert np.array_equal(np.concatenate(alone), found[:3])
    order = np.random.default_rng(1).permutation(COUNT)
    turned = fitted(make(name, encoder), features.take(order), targets[order])
    assert (model.spearman, model.spearman_low, model.interval) == (
        turned.spearman, turned.spearman_low, turned.interval
    )  # fmt: skip
    assert np.array_equal(predicted(turned, features.take(order)), found[order])


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("loss", LOSSES[1:])
def test_every_loss_ranks_what_it_was_fitted_to(name, loss, encoder, world):
    features, targets = world
    if name in ("grams", "ridge"):
        with pytest.raises(UserError, match=f"'{name}' has no loss '{loss}'; use one of squared"):
            make(name, encoder, loss)
        return
    order = np.argsort(features.ids[:, 0], kind="stable")
    found = make(name, encoder, loss).fit(features.take(order), targets[order]).predict(features)
    assert spearman(found, targets) > 0.8
    assert np.isclose(found.mean(), targets.mean(), rtol=0.1) and found.std() < 2 * targets.std()


@pytest.mark.parametrize("name", METHODS)
def test_a_model_started_from_the_former_one_is_better_with_few_probes(name, encoder, world, models):
    (features, targets), former = world, models(name)
    few = np.arange(COUNT) % 3 == 0
    cold, warm = (
        fitted(make(name, encoder), features.take(few), 7 * targets[few] - 1, previous=former, warm=warm)
        for warm in (False, True)
    )
    assert warm.warm and not cold.warm
    assert replace(warm.former, own=0.0) == replace(cold.former, own=0.0)
    truth = targets[~few]
    reached, alone = (spearman(predicted(one, features.take(~few)), truth) for one in (warm, cold))
    assert reached > alone - 0.01 and reached > 0.7


@pytest.mark.parametrize("name", ["encoder", "grams"])
def test_a_method_that_reads_texts_says_so_when_it_has_none(name, encoder, world, models):
    features, targets = world
    with pytest.raises(UserError, match=f"'{name}' reads texts"):
        fit_influence_model(
            features.ids, features.embeddings, features.signals, targets,
            surrogate=make(name, encoder), signal_names=NAMES,
        )  # fmt: skip
    assert models(name).reads_texts
    with pytest.raises(UserError, match="reads texts"):
        models(name).predict(features.embeddings, features.signals)


def test_fine_tuning_moves_the_encoder_and_another_encoder_in_its_place_is_noticed(encoder, world, models, tmp_path):
    from winnow.embed.encoder import load_encoder

    features, model = world[0], models("encoder")
    before = load_encoder(encoder, "float32", 32).model.state_dict()
    weights = model.predictor.weights
    moved = [name for name, value in weights.items() if not np.array_equal(value, before[name].numpy())]
    assert any("attention" in name for name in moved) and any("word_embeddings" in name for name in moved)
    save_model(model, tmp_path / "model")
    other = str(make_tiny_encoder(tmp_path / "other"))
    (tmp_path / "other" / "README.txt").write_text("another one")
    with pytest.raises(UserError, match="has changed since"):
        predicted(load_model(tmp_path / "model", other), features)


def test_unknown_methods_are_refused():
    with pytest.raises(UserError, match="'forest' is unknown; use one of encoder, grams, mlp, ridge, trees"):
        make_surrogate("forest")
