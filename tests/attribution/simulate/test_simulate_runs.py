import numpy as np
import pytest
from simulated_runs import effects, planted_runs

from winnow.attribution.simulate.runs import (
    Reading,
    RunRecord,
    intervals,
    load_runs,
    read_batches,
    read_manifest,
    save_runs,
    step_weights,
)
from winnow.errors import UserError
from winnow.train.batches import pack


def test_a_manifest_is_read_as_packing_reads_it():
    generator = np.random.default_rng(0)
    tokens = generator.integers(1, 40, 12)
    order = generator.permutation(12)[:9]
    windows = pack([np.full(tokens[doc], doc + 1) for doc in order], context=8, eos=0)
    reading = read_manifest(order, tokens, context=8, batch_windows=2)
    # The owner of every position, the end-of-text token counted to the document before it.
    owners = np.repeat(order, tokens[order] + 1)
    assert reading.steps == -(-len(windows) // 2)
    weights = step_weights(reading, 12)
    for step in range(reading.steps):
        part = owners[step * 16 : (step + 1) * 16]
        np.testing.assert_allclose(weights[step], np.bincount(part, minlength=12) / len(part))


def test_what_is_read_between_measurements_is_summed():
    runs = planted_runs(*effects(2, 6), runs=1, steps=10, every=3)
    part = intervals(runs[0], 6)
    assert runs[0].measured.tolist() == [0, 3, 6, 9, 10]
    weights = step_weights(runs[0].reading, 6)
    np.testing.assert_allclose(
        part.weights, [weights[0:3].sum(0), weights[3:6].sum(0), weights[6:9].sum(0), weights[9]]
    )
    assert np.array_equal(part.after[:-1], part.before[1:])


def test_runs_come_back_from_their_file_as_they_were(tmp_path):
    runs = planted_runs(*effects(2, 6), runs=3, steps=5)
    save_runs(tmp_path / "runs.safetensors", runs)
    for run, back in zip(runs, load_runs(tmp_path / "runs.safetensors"), strict=True):
        assert np.array_equal(run.losses, back.losses) and np.array_equal(run.reading.rates, back.reading.rates)
        assert np.array_equal(step_weights(run.reading, 6), step_weights(back.reading, 6))
    (tmp_path / "other").write_bytes(b"x")
    with pytest.raises(UserError, match="record them again"):
        load_runs(tmp_path / "other")


def test_records_that_do_not_fit_are_refused():
    reading = read_batches([np.array([0, 1]), np.array([1])])
    with pytest.raises(UserError, match="one row more"):
        RunRecord(reading, np.ones((2, 1)))
    with pytest.raises(UserError, match="after the last"):
        RunRecord(reading, np.array([[1.0], [1.0], [np.nan]]))
    with pytest.raises(UserError, match="do not fit"):
        Reading(np.array([0, 3]), np.array([0]), np.ones(1), np.ones(1))
    with pytest.raises(UserError, match="corpus of 1"):
        step_weights(reading, 1)
    with pytest.raises(UserError, match="steps"):
        read_manifest(np.array([0]), np.array([20]), 4, 1, rates=np.ones(2))
    with pytest.raises(UserError, match="no documents"):
        read_manifest(np.array([], dtype=int), np.array([20]), 4, 1)
