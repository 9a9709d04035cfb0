"""``winnow attribution bench`` and the asset of the same table."""

from __future__ import annotations

from dataclasses import replace

import dagster as dg
import pytest
from shell import Shell

import definitions
from winnow.attribution import bench
from winnow.attribution.bank import BankPlan
from winnow.config import Config, save_config
from winnow.home import Home
from winnow.store.store import open_store


@pytest.fixture(autouse=True)
def smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = bench.BENCHES["tiny"]
    less = replace(tiny, recipe=replace(tiny.recipe, epochs=1), plan=BankPlan(4, seeds=(0,)), checkpoints=2)
    monkeypatch.setitem(bench.BENCHES, "tiny", less)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0})


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    made = Home(tmp_path_factory.mktemp("bench") / "home")
    made.root.mkdir()
    save_config(Config(), made.config)
    return made


def test_the_leaderboard_is_printed_and_the_bank_kept(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    shell = Shell(home.root, capsys)
    code, out, err = shell("attribution", "bench", "--estimators", "tfidf,random")
    assert code == 0
    assert out.splitlines()[0].split()[:3] == ["estimator", "scope", "damping"]
    assert "64 documents, 4 subsets x 1 seeds, 8 judging queries" in out
    assert "4 of 4 subset models trained" in err
    assert len(list((home.artifacts / "attribution_bench").glob("tiny-*/subset-*.safetensors"))) == 4
    code, out, err = shell("attribution", "bench", "--estimators", "tfidf", "--format", "csv")
    assert code == 0 and "trained" not in err
    assert out.splitlines()[1].split(",")[2] == "tfidf"


def test_a_wrong_name_is_a_mistake_to_mend(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    shell = Shell(home.root, capsys)
    code, _, err = shell("attribution", "bench", "--estimators", "tf-idf")
    assert code == 2 and "attribution method 'tf-idf' is unknown" in err
    code, _, err = shell("attribution", "bench", "--bench", "huge")
    assert code == 2 and "use one of tiny, small, mixed" in err
    code, _, err = shell("attribution", "bench", "--runs", "0")
    assert code == 2 and "ask for at least 1" in err
    code, _, err = shell("attribution", "bench", "--projection", "-2")
    assert code == 2 and "projection -2" in err


def test_the_asset_writes_a_row_an_estimator_and_replaces_its_own(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WINNOW_HOME", str(home.root))
    job = definitions.defs.resolve_job_def("validate_attribution")
    materialized = []
    for names in (["tfidf", "random", "length", "tfidf"], ["length", "tfidf", "random"], ["length"]):
        chosen = {"ops": {"attribution_bench": {"config": {"estimators": names}}}}
        with dg.instance_for_test() as instance:
            ended = job.execute_in_process(run_config=chosen, instance=instance)
        assert ended.success
        materialized += ended.asset_materializations_for_node("attribution_bench")
    store = open_store(home)
    rows = store.query("SELECT estimator, lds, reason, runs, subsets FROM attribution_bench ORDER BY estimator")
    assert [row[0] for row in rows] == ["length", "random", "tfidf"]
    assert all(row[1] is not None and row[2:] == (None, 1, 4) for row in rows)
    made, again, less = (one.metadata for one in materialized)
    assert made["dagster/row_count"].value == 3 and "leaderboard" in made and "lds" in made
    assert "skipped" not in made and "skipped" in again and again["dagster/row_count"].value == 3
    assert "skipped" not in less and less["dagster/row_count"].value == 3
