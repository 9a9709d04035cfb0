import dataclasses
import itertools

import numpy as np
import pytest
import torch

from winnow.attribution.adamw import AdamW
from winnow.errors import UserError
from winnow.train.batches import pack
from winnow.train.checkpoint import load_checkpoint, save_checkpoint
from winnow.train.evaluate import evaluate_loss
from winnow.train.loop import TrainSettings, learning_rate, train
from winnow.train.model import ModelConfig, build_model
from winnow.train.tokenizer import load_tokenizer, save_tokenizer, train_tokenizer

CONFIG = ModelConfig(vocab=300, hidden=32, layers=2, heads=2, intermediate=48, context=32)
SETTINGS = TrainSettings(lr=1e-2, warmup_steps=2, batch_windows=4, schedule="wsd")


def documents(count: int = 60, seed: int = 0) -> list[np.ndarray]:
    """Counting sequences: each token but the first follows from the one before it."""
    rng = np.random.default_rng(seed)
    return [(rng.integers(1, 200) + np.arange(rng.integers(5, 40))).astype(np.int32) for _ in range(count)]


WINDOWS = pack(documents(), CONFIG.context, eos=0)[:40]


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_two_runs_are_equal_to_the_bit(dtype):
    results = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        model = build_model(CONFIG, seed=0)
        result = train(model, WINDOWS, dataclasses.replace(SETTINGS, dtype=dtype))
        results.append((model.state_dict(), result))
    assert same(results[0][0], results[1][0])
    assert results[0][1].train_losses == results[1][1].train_losses
    assert same(results[0][1].optimizer_state.exp_avg_sq, results[1][1].optimizer_state.exp_avg_sq)


@pytest.mark.parametrize("schedule", ["wsd", "cosine", "constant"])
def test_ten_steps_equal_five_saved_loaded_and_five_more(schedule, tmp_path):
    save_tokenizer(train_tokenizer(["some text to learn"], 280), tmp_path / "tokenizer")
    tokenizer = load_tokenizer(tmp_path / "tokenizer")
    settings = dataclasses.replace(SETTINGS, schedule=schedule, total_steps=10)
    whole = build_model(CONFIG, seed=0)
    expected = train(whole, WINDOWS, settings)
    assert expected.steps == 10

    model = build_model(CONFIG, seed=0)
    half = train(model, WINDOWS[:20], settings)
    told = {"step": 5, "tokens": half.tokens, "optimizer": half.optimizer}
    save_checkpoint(tmp_path / "half", model, tokenizer, half.optimizer_state, told)
    checkpoint = load_checkpoint(tmp_path / "half")
    recorded = checkpoint.state["optimizer"]
    assert recorded["learning_rate"] == learning_rate(settings, 4, 10)
    assert (recorded["schedule"]["step"], recorded["schedule"]["total_steps"]) == (5, 10)
    assert AdamW.recorded(recorded, 1.0) == AdamW(learning_rate(settings, 4, 10))
    assert checkpoint.optimizer_state is not None and checkpoint.optimizer_state.step == 5
    settings = dataclasses.replace(settings, first_step=checkpoint.state["step"])
    rest = train(checkpoint.model, WINDOWS[20:], settings, checkpoint.optimizer_state)
    assert same(checkpoint.model.state_dict(), whole.state_dict())
    assert half.train_losses + rest.train_losses == expected.train_losses
    assert rest.optimizer_state.step == 10 and rest.optimizer == expected.optimizer
    assert same(rest.optimizer_state.exp_avg, expected.optimizer_state.exp_avg)


def test_training_lowers_the_loss_on_held_out_items_and_records_the_curve():
    model = build_model(CONFIG, seed=0)
    held_out = documents(20, seed=1)
    windows = pack(documents(400), CONFIG.context, eos=0)
    seen: list[tuple[int, int, float]] = []
    result = train(
        model,
        windows,
        SETTINGS,
        evaluate=lambda m: evaluate_loss(m, held_out, CONFIG.context).mean,
        eval_every_tokens=3000,
        progress=lambda *values: seen.append(values),
    )
    assert result.tokens == int((windows >= 0).sum()) == seen[-1][0] == seen[-1][1]
    assert result.curve[0][0] == 0 and result.curve[-1][0] == result.tokens and len(result.curve) > 3
    assert result.curve[-1][1] < result.curve[0][1] - 1
    assert len(result.train_losses) == result.steps == -(-len(windows) // SETTINGS.batch_windows)


def test_evaluating_in_between_does_not_change_the_training():
    plain, watched = build_model(CONFIG, seed=0), build_model(CONFIG, seed=0)
    train(plain, WINDOWS, SETTINGS)
    train(watched, WINDOWS, SETTINGS, evaluate=lambda m: float(torch.rand(())), eval_every_tokens=1)
    assert same(plain.state_dict(), watched.state_dict())


def test_padding_is_neither_read_nor_predicted():
    window = np.full((1, 32), -1, dtype=np.int32)
    window[0, :10] = np.arange(10)
    short, long = build_model(CONFIG, seed=0), build_model(CONFIG, seed=0)
    settings = dataclasses.replace(SETTINGS, dtype="float32")
    first, second = train(short, window[:, :10], settings), train(long, window, settings)
    assert first.tokens == second.tokens == 10
    assert first.train_losses[0] == pytest.approx(second.train_losses[0], rel=1e-6)


def test_schedules_warm_up_hold_and_fall():
    for schedule in ("wsd", "cosine", "constant"):
        settings = TrainSettings(lr=1.0, warmup_steps=10, schedule=schedule, decay_fraction=0.2)
        rates = [learning_rate(settings, step, 100) for step in range(100)]
        assert all(later > earlier for earlier, later in itertools.pairwise(rates[:11]))
        assert max(rates) == 1.0 and min(rates) > 0
        if schedule == "wsd":
            assert rates[10:79] == [1.0] * 69 and rates[-1] < 0.06
        if schedule == "cosine":
            assert rates[-1] == pytest.approx(0.1, abs=0.01)


def test_no_windows_leave_the_model_as_it_was():
    model = build_model(CONFIG, seed=0)
    result = train(model, WINDOWS[:0], SETTINGS)
    assert result.steps == result.tokens == 0
    assert same(model.state_dict(), build_model(CONFIG, seed=0).state_dict())


def test_wrong_settings_a_foreign_state_and_a_diverging_loss_are_user_errors():
    model = build_model(CONFIG, seed=0)
    for wrong in ({"lr": 0.0}, {"batch_windows": 0}, {"schedule": "step"}, {"decay_fraction": 2.0}):
        with pytest.raises(UserError, match="set it"):
            train(model, WINDOWS, dataclasses.replace(SETTINGS, **wrong))
    other = build_model(dataclasses.replace(CONFIG, layers=1), seed=0)
    state = train(other, WINDOWS[:4], SETTINGS).optimizer_state
    with pytest.raises(UserError, match="parameters differ"):
        train(model, WINDOWS, SETTINGS, optimizer_state=state)
    with torch.no_grad():
        model.model.norm.weight.fill_(float("inf"))
    with pytest.raises(UserError, match="lower lr"):
        train(model, WINDOWS, SETTINGS)


def test_windows_of_weight_zero_teach_nothing_and_equal_weights_change_nothing():
    windows = WINDOWS[:8]
    plain, weighted, half = (build_model(CONFIG, seed=0) for _ in range(3))
    settings = dataclasses.replace(SETTINGS, dtype="float32")
    expected = train(plain, windows, settings)
    equal = train(weighted, windows, settings, weights=np.full(windows.shape, 2.0, np.float32))
    np.testing.assert_allclose(equal.train_losses, expected.train_losses, rtol=1e-5)
    only_first = np.zeros(windows.shape, np.float32)
    only_first[::2] = 1.0  # of the two windows of each step the first
    settings = dataclasses.replace(settings, batch_windows=2)
    kept = train(half, windows, settings, weights=only_first)
    alone = train(build_model(CONFIG, seed=0), windows[::2], dataclasses.replace(settings, batch_windows=1))
    np.testing.assert_allclose(kept.train_losses, alone.train_losses, rtol=1e-5)


def test_a_step_is_reweighed_by_the_losses_of_its_windows():
    seen = []

    def hardest(losses: np.ndarray) -> np.ndarray:
        seen.append(losses)
        return (losses == losses.max()).astype(np.float64)

    settings = dataclasses.replace(SETTINGS, dtype="float32")
    result = train(build_model(CONFIG, seed=0), WINDOWS[:8], settings, reweigh=hardest)
    assert [len(losses) for losses in seen] == [4, 4]
    np.testing.assert_allclose(result.train_losses, [losses.max() for losses in seen], rtol=1e-6)
