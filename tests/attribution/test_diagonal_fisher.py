"""The diagonal of the empirical Fisher, measured on the documents."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from attribution_models import own_gradients, random_docs

from winnow.attribution.estimators import make_estimator
from winnow.attribution.estimators.diagonal_fisher import fisher_diagonal
from winnow.attribution.run import Queries, RunCheckpoint, Settings, TrainingRun
from winnow.errors import UserError

DOCS = random_docs(7, 1)


def test_it_is_the_mean_of_every_documents_squared_gradient_in_any_order(llama) -> None:
    found = fisher_diagonal(llama, DOCS, "head")["lm_head"]
    expected = torch.stack([own_gradients(llama, doc)["lm_head.weight"].square() for doc in DOCS]).mean(dim=0)
    torch.testing.assert_close(found.float(), expected, rtol=1e-4, atol=1e-12)
    torch.testing.assert_close(fisher_diagonal(llama, DOCS[::-1], "head")["lm_head"], found, rtol=0, atol=0)


def test_the_score_is_the_damped_quotient_of_gradients(llama) -> None:
    run = TrainingRun(DOCS, (RunCheckpoint("last", lambda: llama),))
    queries = random_docs(2, 5)
    scores = make_estimator("diagonal_fisher").fit(run, Settings("head", 0.1)).score(Queries(queries))
    gradients = torch.stack([own_gradients(llama, doc)["lm_head.weight"].double() for doc in DOCS])
    asked = torch.stack([own_gradients(llama, doc)["lm_head.weight"].double() for doc in queries])
    fisher = gradients.square().mean(dim=0)
    expected = torch.einsum("qoi,noi->qn", asked / (fisher + 0.1 * fisher.mean()), gradients)
    np.testing.assert_allclose(scores, expected.numpy(), rtol=1e-3, atol=1e-6)


def test_no_damping_is_refused(llama) -> None:
    run = TrainingRun(DOCS, (RunCheckpoint("last", lambda: llama),))
    with pytest.raises(UserError, match="need a positive one"):
        make_estimator("diagonal_fisher").fit(run, Settings("head", 0.0))
