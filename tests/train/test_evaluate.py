import numpy as np
import pytest
import torch

from winnow.train.evaluate import evaluate_loss
from winnow.train.model import ModelConfig, build_model

CONFIG = ModelConfig(vocab=300, hidden=32, layers=2, heads=2, intermediate=48, context=48)
RNG = np.random.default_rng(0)
ITEMS = [RNG.integers(1, 300, size=size).astype(np.int32) for size in (2, 5, 17, 48, 49, 95, 120, 30, 33, 2, 11)]


@pytest.fixture(scope="module")
def model():
    return build_model(CONFIG, seed=0).eval()


def exact(model, item: np.ndarray) -> tuple[float, int]:
    """The slow twin: one token at a time from the start of its window."""
    nats, count = 0.0, 0
    for start in range(0, len(item) - 1, CONFIG.context - 1):
        window = torch.tensor(item[start : start + CONFIG.context].astype(np.int64))
        for place in range(1, len(window)):
            with torch.inference_mode():
                logits = model(input_ids=window[None, :place]).logits[0, -1].double()
            nats -= float(torch.log_softmax(logits, -1)[window[place]])
            count += 1
    return nats, count


def test_the_loss_is_that_of_predicting_each_token_but_the_first_once(model):
    loss = evaluate_loss(model, ITEMS, CONFIG.context)
    truth = [exact(model, item) for item in ITEMS]
    assert loss.tokens_per_item.tolist() == [count for _, count in truth] == [len(item) - 1 for item in ITEMS]
    np.testing.assert_allclose(loss.per_item, [nats / count for nats, count in truth], rtol=1e-5)
    assert loss.mean == pytest.approx(sum(nats for nats, _ in truth) / loss.tokens, rel=1e-5)


def test_other_items_and_their_order_change_no_bit(model):
    loss = evaluate_loss(model, ITEMS, CONFIG.context)
    order = np.random.default_rng(1).permutation(len(ITEMS))
    shuffled = evaluate_loss(model, [ITEMS[i] for i in order], CONFIG.context)
    assert np.array_equal(shuffled.per_item, loss.per_item[order]) and shuffled.mean == loss.mean
    for index in (0, 2, 6):
        alone = evaluate_loss(model, [ITEMS[index]], CONFIG.context)
        assert alone.per_item[0] == loss.per_item[index]
    crowd = evaluate_loss(model, [ITEMS[2]] * 80, CONFIG.context).per_item
    assert (crowd == loss.per_item[2]).all()


def test_the_first_window_alone_reads_no_further(model):
    loss = evaluate_loss(model, ITEMS, CONFIG.context, all_windows=False)
    assert loss.tokens_per_item.tolist() == [min(len(item), CONFIG.context) - 1 for item in ITEMS]
    cut = evaluate_loss(model, [item[: CONFIG.context] for item in ITEMS], CONFIG.context)
    assert np.array_equal(loss.per_item, cut.per_item)


def test_items_without_a_token_to_predict_have_no_loss(model):
    loss = evaluate_loss(model, [ITEMS[0], ITEMS[0][:1], ITEMS[0][:0]], CONFIG.context)
    assert np.isnan(loss.per_item[1:]).all() and np.isfinite(loss.per_item[0])
    assert loss.tokens == 1 and np.isfinite(loss.mean)
    assert np.isnan(evaluate_loss(model, [], CONFIG.context).mean)


def test_evaluation_leaves_the_training_mode_as_it_was(model):
    model.train()
    evaluate_loss(model, ITEMS[:1], CONFIG.context)
    assert model.training
    model.eval()
