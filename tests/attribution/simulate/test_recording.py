import numpy as np
from attribution_models import patterned_docs

from winnow.attribution.retraining import Recipe, losses, retrain
from winnow.attribution.simulate.recording import record_run

RECIPE = Recipe("llama", 64, 16, 1, 2, 32, intermediate=24, learning_rate=5e-3, warmup_steps=2, epochs=2, batch=4)


def test_a_recorded_run_is_the_training_itself_and_says_what_was_read():
    documents = [document[:32] for document in patterned_docs(10, 0, 1)]
    queries, members = patterned_docs(2, 0, 5), np.array([7, 1, 2, 4, 9, 0])
    run = record_run(RECIPE, documents, members, queries, order=3, seed=3, every=2)
    *_, last = retrain(RECIPE, [documents[member] for member in sorted(members)], seed=3)
    np.testing.assert_array_equal(run.losses[-1], losses(last.model, queries, 32))
    assert run.measured.tolist() == [0, 2, 3] and run.reading.steps == 3
    assert np.bincount(run.reading.documents, minlength=10).tolist() == [2, 2, 2, 0, 2, 0, 0, 2, 0, 2]
    assert run.reading.rates[-1] == last.learning_rate
