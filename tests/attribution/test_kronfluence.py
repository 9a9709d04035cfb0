"""Our K-FAC, EK-FAC and plain products against an independent implementation, where it is installed."""

import copy

import numpy as np
import pytest
import torch
from attribution_models import build_llama, random_docs
from torch.nn.functional import cross_entropy

from winnow.attribution.capture import capturing
from winnow.attribution.correlation import spearman
from winnow.attribution.curvature import fit_curvature
from winnow.attribution.directional import query_gradients, score_along
from winnow.attribution.sites import find_sites

pytest.importorskip("kronfluence", reason="kronfluence is not installed: it comes with the bench extra")
pytestmark = pytest.mark.slow

DOCS = random_docs(24, low=33, high=34)
QUERIES = random_docs(4, seed=9, low=33, high=34)


def _theirs(strategy, folder):
    from kronfluence.analyzer import Analyzer, prepare_model
    from kronfluence.arguments import FactorArguments, ScoreArguments
    from kronfluence.task import Task

    plain = build_llama()

    class NextToken(Task):
        def compute_train_loss(self, batch, model, sample=False):
            logits = model(input_ids=batch[:, :-1], use_cache=False).logits
            return cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten(), reduction="sum") / 32

        def compute_measurement(self, batch, model):
            return self.compute_train_loss(batch, model)

        def get_influence_tracked_modules(self):
            return list(find_sites(plain))

    task = NextToken()
    analyzer = Analyzer(
        "test", prepare_model(copy.deepcopy(plain), task), task, cpu=True, disable_tqdm=True, output_dir=str(folder)
    )
    docs, queries = (list(torch.from_numpy(np.stack(given))) for given in (DOCS, QUERIES))
    arguments = FactorArguments(strategy=strategy, use_empirical_fisher=True)
    analyzer.fit_all_factors("factors", docs, per_device_batch_size=8, factor_args=arguments)
    analyzer.compute_pairwise_scores(
        "scores",
        "factors",
        query_dataset=queries,
        train_dataset=docs,
        per_device_query_batch_size=4,
        per_device_train_batch_size=8,
        score_args=ScoreArguments(damping_factor=None),
    )
    return analyzer.load_pairwise_scores("scores")["all_modules"].double().numpy()


@pytest.mark.parametrize("strategy", ["identity", "kfac", "ekfac"])
def test_the_ranks_are_those_of_kronfluence(strategy, tmp_path):
    model = build_llama()
    directions = query_gradients(model, QUERIES)
    if strategy != "identity":
        with capturing(model) as capture:
            curvature = fit_curvature(capture, DOCS, 64, labels="text")
        for name, layer in curvature.layers.items():
            directions[name] = layer.inverse_product(directions[name], 0.1, kfac=strategy == "kfac").float()
    ours = score_along(model, DOCS, directions).influence
    theirs = _theirs(strategy, tmp_path)
    for mine, other in zip(ours, theirs, strict=True):
        assert spearman(mine, other) > 0.99
        assert np.corrcoef(mine, other)[0, 1] > 0.999
