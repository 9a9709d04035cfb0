"""The main job from files to a validated manifest, in a small world."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pytest
from worlds import CONTAMINATED, FITTED, LOW_QUALITY, NEAR_PAIR, SUPPORTING, Finished, World, metadata_by_asset

from winnow.cli import main
from winnow.mixture.manifest_files import read_manifest, verify_manifest
from winnow.store.published import open_published
from winnow.store.schema import tables


def all_metadata(finished: Finished) -> dict[str, dict[str, object]]:
    reports: dict[str, dict[str, object]] = {}
    for result in (finished.ingest, finished.curate, finished.train):
        reports |= {name: dict(entries) for name, entries in metadata_by_asset(result).items()}
    return reports


def manifest_rows(finished: Finished) -> pa.Table:
    return read_manifest(finished.world.home.manifests / "v0001").rows


def test_every_run_succeeds_and_every_asset_is_materialized(finished: Finished) -> None:
    assert finished.ingest.success and finished.curate.success and finished.train.success
    made = set(all_metadata(finished))
    assert made >= FITTED
    assert made - FITTED == {name for name, table in tables().items() if table.stage != "bookkeeping"} - SUPPORTING


def test_every_table_reports_its_rows_its_columns_and_what_was_processed(finished: Finished) -> None:
    for name, reported in all_metadata(finished).items():
        if name in FITTED:
            continue
        schema = reported["dagster/column_schema"]
        assert isinstance(schema, dg.TableSchema)
        assert [column.name for column in schema.columns] == [column for column, _, _ in tables()[name].columns]
        assert all(column.description for column in schema.columns)
        rows = reported["dagster/row_count"]
        if name != "quarantine":  # nothing is broken in this world
            assert isinstance(rows, int) and rows > 0, name
            assert isinstance(reported["processed"], int) and reported["processed"] > 0, name
            assert isinstance(reported["seconds"], float), name


def test_a_table_holds_as_many_rows_as_its_asset_reports(finished: Finished) -> None:
    with open_published(finished.world.home) as connection:
        for name, reported in all_metadata(finished).items():
            if name not in FITTED | {"probes", "validations", "duplicates"}:  # later assets add to these
                counted = connection.execute(f"SELECT count(*) FROM {name}").fetchone()
                assert counted == (reported["dagster/row_count"],), name


def test_all_checks_pass(finished: Finished) -> None:
    outcomes = {found.check_name: found.passed for found in finished.curate.get_asset_check_evaluations()}
    assert set(outcomes) == {
        "funnel_equality", "no_reference_leakage", "no_duplicate_pair", "within_budget", "digest_verifies",
        "influence_model_above_floor", "influence_model_fresh", "duplicates_within_reason",
    }  # fmt: skip
    assert all(outcomes.values()), outcomes


def test_every_document_has_one_decision(finished: Finished) -> None:
    world = finished.world
    documents = world.value("SELECT count(*) FROM documents")
    assert documents > 150
    assert world.rows("SELECT count(*), count(DISTINCT doc_id) FROM decisions") == [(documents, documents)]
    undecided = "SELECT count(*) FROM documents ANTI JOIN decisions USING (doc_id)"
    assert world.value(undecided) == 0


def test_a_decision_names_its_stage_and_its_evidence(finished: Finished) -> None:
    world = finished.world
    decided = (
        "SELECT stage, verdict, reason, detail FROM decisions JOIN documents USING (doc_id) WHERE original_id = $name"
    )
    [(stage, verdict, reason, detail)] = world.rows(decided, name=LOW_QUALITY)
    assert (stage, verdict, reason) == ("signals", "rejected", "low_quality") and detail
    [(stage, verdict, reason, detail)] = world.rows(decided, name=CONTAMINATED)
    assert (stage, verdict, reason) == ("contamination", "rejected", "contaminated") and "python" in detail
    repeated = world.rows(
        "SELECT d.matched_doc, d.reason, o.original_id FROM decisions d JOIN documents o USING (doc_id)"
        " WHERE d.stage = 'duplicates'"
    )
    assert {name for _, _, name in repeated} & set(NEAR_PAIR)
    kept = {doc for (doc,) in world.rows("SELECT doc_id FROM decisions WHERE stage <> 'duplicates'")}
    assert all(keeper in kept and reason == "near_duplicate" for keeper, reason, _ in repeated)


def test_the_manifest_verifies_within_its_budget_and_in_order(finished: Finished) -> None:
    rows = manifest_rows(finished)
    assert verify_manifest(finished.world.home.manifests / "v0001").problems == []
    assert rows["order"].to_pylist() == list(range(len(rows)))
    assert 0 < sum(rows["tokens"].to_pylist()) <= 3_000
    assert len(set(rows["doc_id"].to_pylist())) == len(rows)
    selected = {doc for (doc,) in finished.world.rows("SELECT doc_id FROM decisions WHERE verdict = 'selected'")}
    assert set(rows["doc_id"].to_pylist()) == selected


def test_a_manifest_row_leads_back_to_the_record_in_its_file(finished: Finished) -> None:
    world = finished.world
    for row in manifest_rows(finished).slice(0, 5).to_pylist():
        lines = (world.home.inbox / row["uri"]).read_text(encoding="utf-8").splitlines()
        with open_published(world.home) as connection:
            found = connection.execute("SELECT text FROM texts WHERE doc_id = $doc", {"doc": row["doc_id"]}).fetchone()
        assert found == (json.loads(lines[row["row"]])["text"],)
        assert row["uri"].startswith(row["source"] + "/")


def test_the_ledger_grants_what_the_manifest_spends(finished: Finished) -> None:
    world = finished.world
    granted = dict(world.rows("SELECT cluster, sum(tokens_granted)::BIGINT FROM bandit_rounds GROUP BY cluster"))
    spent: Counter[int] = Counter()
    cluster_of = dict(world.rows("SELECT doc_id, cluster FROM clusters"))
    for row in manifest_rows(finished).to_pylist():
        spent[cluster_of[row["doc_id"]]] += row["tokens"]
    assert sum(granted.values()) >= sum(spent.values())
    assert {cluster for cluster in spent if not granted.get(cluster)} == set()


def test_the_random_control_has_the_same_budget(finished: Finished) -> None:
    world = finished.world
    [(tokens, control, budget)] = world.rows("SELECT tokens, control_tokens, budget_tokens FROM manifests")
    assert budget == 3_000 and 0.9 * budget <= control <= budget and 0.9 * budget <= tokens <= budget
    counted = world.value("SELECT sum(tokens)::BIGINT FROM decisions JOIN token_counts USING (doc_id) WHERE in_control")
    assert counted == control
    assert world.value("SELECT count(*) FROM decisions WHERE in_control AND stage <> 'selection'") == 0


def test_validation_measures_both_arms_from_the_same_start_for_the_same_windows(finished: Finished) -> None:
    world = finished.world
    curves = {
        arm: world.rows("SELECT tokens, loss, final FROM validations WHERE arm = $arm ORDER BY tokens", arm=arm)
        for arm in ("manifest", "random")
    }
    assert world.value("SELECT count(DISTINCT arm) FROM validations") == 2
    starts = {curve[0][:2] for curve in curves.values()}
    assert len(starts) == 1 and next(iter(starts))[0] == 0
    ends = [curve[-1] for curve in curves.values()]
    assert all(final for *_, final in ends) and all(loss < curves["manifest"][0][1] for _, loss, _ in ends)
    windows = {-(-tokens // 64) for tokens, _, _ in ends}
    assert len(windows) == 1


def test_training_on_a_manifest_leaves_a_checkpoint_that_names_it(finished: Finished) -> None:
    from winnow.train.checkpoint import problem, read_state

    [folder] = [path for path in finished.world.home.checkpoints.iterdir() if path.name.startswith("v0001-")]
    assert problem(folder) is None
    state = read_state(folder)
    assert state["manifest"] == "v0001" and state["parent"] == finished.world.checkpoint
    assert state["manifest_digest"] == finished.world.digests()[0]


def test_the_funnel_adds_up_for_every_source(finished: Finished) -> None:
    funnel = read_manifest(finished.world.home.manifests / "v0001").funnel
    assert set(funnel) == {"files", "numbers", "programs"}
    for outcomes in funnel.values():
        parts = [count["records"] for outcome, count in outcomes.items() if outcome != "records"]
        assert sum(parts) == outcomes["records"]["records"] > 0
    assert funnel["programs"]["exact_duplicate"]["records"] == 1


def identity(path: Path) -> tuple[int, int, int]:
    """Return what changes when a file is written or replaced, and not when it is read."""
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


def test_a_rerun_recomputes_nothing_and_says_so(finished: Finished) -> None:
    world = finished.world
    costs = world.rows("SELECT * FROM costs ORDER BY ALL")
    published = identity(world.home.published)
    batch = world.value("SELECT DISTINCT batch FROM shards")
    results = [world.ingest_batch(batch), world.curate(), world.train()]
    reported = {name: entries for result in results for name, entries in metadata_by_asset(result).items()}
    assert {name for name, entries in reported.items() if "skipped" not in entries} == set()
    assert world.rows("SELECT * FROM costs ORDER BY ALL") == costs
    assert len(world.digests()) == 1
    assert identity(world.home.published) == published
    assert world.ingest() is None


def test_a_reader_of_the_published_file_keeps_its_state_and_blocks_nobody(copy_of_base: Callable[[str], World]) -> None:
    world = copy_of_base("home")
    world.store.publish()
    with open_published(world.home) as connection:
        before = connection.execute("SELECT count(*) FROM documents").fetchone()
        with world.store.write() as writing:
            writing.execute("DELETE FROM documents")
        assert world.store.publish()
        assert connection.execute("SELECT count(*) FROM documents").fetchone() == before
    with open_published(world.home) as connection:
        assert connection.execute("SELECT count(*) FROM documents").fetchone() == (0,)


def test_the_summary_of_a_run_can_be_printed(finished: Finished, capsys: pytest.CaptureFixture[str]) -> None:
    from winnow.cli.summary import print_summary

    print_summary(finished.world.home, sorted(finished.world.runs()), {"start": 1, "model": 2}, 3.0)
    printed = capsys.readouterr().out
    for title in (
        "Funnel",
        "Largest duplicate groups",
        "Clusters by reward",
        "Influence model",
        "Manifest",
        "Validation",
    ):
        assert f"\n{title}" in printed
    assert finished.world.digests()[0] in printed
    assert main(["--home", str(finished.world.home.root), "manifest", "verify", "v0001"]) == 0
