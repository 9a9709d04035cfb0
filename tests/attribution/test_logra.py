import numpy as np
import pytest
from attribution_models import random_docs
from dense_twins import checkpoint_of, damped, mean_token_loss, projected, run_of, site_gradients, stacked

from winnow.attribution.estimators.logra import FittedLogra, Logra
from winnow.attribution.projected import Making, store_gradients
from winnow.attribution.projection import Projection
from winnow.attribution.run import Queries, Settings


@pytest.mark.parametrize("dimension", [3, 0])
def test_scores_are_products_through_each_layers_inverse_autocorrelation(llama, dimension):
    docs, queries = random_docs(30, seed=3), random_docs(3, seed=4)
    projection = Projection(dimension, 2)
    settings = Settings(scope="mlp", damping=0.5, projection=dimension, seed=2)
    found = Logra().fit(run_of(docs, checkpoint_of(llama)), settings).score(Queries(queries))
    rows, asked = (
        stacked([projected(site_gradients(llama, doc, "mlp", mean_token_loss), projection) for doc in some])
        for some in (docs, queries)
    )
    wanted = np.zeros((3, 30))
    for name, values in rows.items():
        wanted += asked[name] @ np.linalg.solve(damped(values.T @ values / 30, 0.5), values.T)
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4 * np.abs(wanted).max())


def test_stored_rows_score_as_rows_in_memory(tmp_path, llama):
    docs, queries = random_docs(30, seed=3), Queries(random_docs(3, seed=4))
    making = Making("blocks", Projection(6, 0))
    store = store_gradients(tmp_path / "s", llama, docs, making, part_rows=7)
    stored = FittedLogra.from_rows(llama, making, store, 0.1).score(queries)
    memory = Logra().fit(run_of(docs, checkpoint_of(llama)), Settings(projection=6)).score(queries)
    np.testing.assert_allclose(stored, memory, atol=5e-3 * np.abs(memory).max())
