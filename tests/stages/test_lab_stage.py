"""The lab on a small store: its pool and references are the store's, its results are rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_corpus import SmallCorpus, reference_items

from winnow.config import Config
from winnow.errors import UserError
from winnow.lab.kept import RunResult
from winnow.stages.lab import LabRequest, sizes, write_results, write_runs


def made(preset: str, last: float, seed: int = 0) -> RunResult:
    losses = np.array([6.0, 5.0, last])
    return RunResult(
        key=f"{preset}{seed}", preset=preset, target="t", seed=seed, model="proxy", parameters=100,
        tokens=np.array([0, 50, 100]), losses=losses, out=((100, {"t": last, "source:web": 4.0}),),
        items={"t": np.array([last, last])}, positions=np.array([3, 3, 4]), stages=np.zeros(3), costs=(), pulls=2,
    )  # fmt: skip


@pytest.fixture
def corpus(tmp_path: Path) -> SmallCorpus:
    return SmallCorpus(tmp_path / "home", sets=[reference_items("nobody has this")])


def test_runs_and_results_become_rows_and_a_rerun_replaces_them(corpus: SmallCorpus) -> None:
    store, runs = corpus.store, [made("random", 4.5), made("better", 4.0), made("worse", 4.8)]
    for _ in range(2):
        with store.write() as connection:
            write_runs(connection, "one", runs)
            write_results(connection, "one", runs, {"broken on t, seed 0, proxy": "it has no vectors"})
    assert store.query("SELECT preset, documents, tokens, loss FROM lab_runs ORDER BY preset") == [
        ("better", 2, 100, 4.0), ("random", 2, 100, 4.5), ("worse", 2, 100, 4.8),
    ]  # fmt: skip
    assert store.query("SELECT tokens, measured, loss FROM lab_curves WHERE run = 'better0' ORDER BY ALL") == [
        (0, "t", 6.0), (50, "t", 5.0), (100, "source:web", 4.0), (100, "t", 4.0),
    ]  # fmt: skip
    found = {row[0]: row[1:] for row in store.query("SELECT preset, difference, tokens, failed FROM lab_results")}
    assert found["better"] == (pytest.approx(-0.5), pytest.approx(0.75), None)
    assert found["worse"] == (pytest.approx(0.3), None, None)  # never
    assert found["broken on t, seed 0, proxy"] == (None, None, "it has no vectors")
    assert len(found) == 4


def test_a_request_always_has_random_and_refuses_what_cannot_be_meant() -> None:
    assert LabRequest(("dsir",)).checked().presets == ("random", "dsir")
    assert LabRequest(("dsir", "random")).checked().presets == ("random", "dsir")
    with pytest.raises(UserError, match="no such preset"):
        LabRequest(("nothing",)).checked()
    with pytest.raises(UserError, match="no model size 'huge'"):
        LabRequest(models=("huge",)).checked()
    with pytest.raises(UserError, match="give at least 1 of each"):
        LabRequest(seeds=0).checked()


def test_half_a_model_is_a_model_that_can_be_built() -> None:
    found = sizes(Config(), 500, ("proxy", "half"))
    for config in found.values():
        config.validate()
        assert config.vocab == 500
    assert found["half"].parameters < found["proxy"].parameters
