"""What a change costs: a new file its own documents, one selection and one manifest; and no way of delivery matters."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from worlds import Finished, World, later_documents, metadata_by_asset, small_config

from winnow.mixture.manifest_files import read_manifest, verify_manifest

pytestmark = pytest.mark.slow

FILES = 5
TICKS = 5 if "WINNOW_FAULTS" in os.environ else 2
NEW = later_documents(5 * FILES)
"""Documents that arrive later; among them a near duplicate of one that is there, which has to be found."""


def files_of_five(world: World) -> dict[str, list[dict[str, Any]]]:
    records = [dict(record) for record in NEW]
    known = (world.home.inbox / "files/first.jsonl").read_text(encoding="utf-8").splitlines()
    longest = max((json.loads(line)["text"] for line in known), key=len)
    records[7] = {"id": "said-again", "text": longest + " Again."}
    return {f"files/later-{index}.jsonl": records[index::FILES] for index in range(FILES)}


def pinned(world: World) -> list[tuple[Any, ...]]:
    """What is fitted once: keys and outputs, and the checkpoint and its influence model."""
    return [
        *world.rows(
            "SELECT stage, key, output FROM stage_keys WHERE list_contains($stages, stage) ORDER BY ALL",
            stages=["tokenizer", "clustering", "checkpoints", "influence_models", "probes"],
        ),
        *world.rows("SELECT checkpoint, weights_digest, tokenizer FROM checkpoints ORDER BY ALL"),
        *world.rows("SELECT model, checkpoint, spearman FROM influence_models ORDER BY ALL"),
    ]


class AfterFiveFiles:
    """A copy of the base world to which five files came in one tick."""

    def __init__(self, finished: Finished, root: Path) -> None:
        self.world = finished.world.copy(root)
        self.pinned_before = pinned(self.world)
        self.runs_before = self.world.runs()
        self.documents_before = self.world.value("SELECT count(*) FROM documents")
        self.files = files_of_five(self.world)
        for name, records in self.files.items():
            self.world.deliver(name, records)
        self.ingest = self.world.ingest()
        self.curate = self.world.curate()
        self.digest = self.world.digests()[-1]
        self.processed = self.world.processed_since(self.runs_before)
        self.pinned_after = pinned(self.world)


@pytest.fixture(scope="module")
def after(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> AfterFiveFiles:
    return AfterFiveFiles(finished, tmp_path_factory.mktemp("one-tick") / "home")


def test_a_new_file_costs_its_own_documents(after: AfterFiveFiles) -> None:
    new = sum(len(records) for records in after.files.values())
    for stage in (
        "corpus", "signals", "sketches", "embeddings", "duplicate_pairs", "contamination", "clusters", "token_counts",
        "scores",
    ):  # fmt: skip
        assert after.processed[stage] == new, stage
    assert after.world.value("SELECT count(*) FROM documents") == after.documents_before + new


def test_a_new_file_refits_nothing(after: AfterFiveFiles) -> None:
    assert after.pinned_after == after.pinned_before
    assert {"tokenizer", "clustering", "checkpoints", "probes", "influence_models", "reference_sets"}.isdisjoint(
        after.processed
    )
    reported = metadata_by_asset(after.curate)
    for name in ("tokenizer", "checkpoints", "probes", "influence_models", "reference_sets"):
        assert "skipped" in reported[name], name


def test_a_new_file_costs_one_selection_and_one_manifest_after_the_last(after: AfterFiveFiles) -> None:
    world = after.world
    assert world.rows("SELECT version, parent FROM manifests ORDER BY version") == [("v0001", None), ("v0002", "v0001")]
    assert world.value("SELECT count(DISTINCT selection) FROM decisions") == 2
    record = read_manifest(world.home.manifests / "v0002")
    assert record.parent == "v0001" and record.digest == after.digest
    assert all(found.passed for found in after.curate.get_asset_check_evaluations())


def test_the_new_manifest_contains_or_rejects_every_new_document_by_name(after: AfterFiveFiles) -> None:
    world = after.world
    selection = world.value("SELECT selection FROM manifests WHERE version = 'v0002'")
    decided = world.rows(
        "SELECT o.original_id, verdict, stage, reason, detail FROM decisions JOIN occurrences o USING (doc_id)"
        " WHERE selection = $selection AND o.shard LIKE 'files/later-%'",
        selection=selection,
    )
    names = [record["id"] for records in after.files.values() for record in records]
    assert sorted(name for name, *_ in decided) == sorted(names)
    assert all(verdict in ("selected", "rejected") and reason and detail for _, verdict, _, reason, detail in decided)
    [(stage, reason)] = [(stage, reason) for name, _, stage, reason, _ in decided if name == "said-again"]
    assert (stage, reason) == ("duplicates", "near_duplicate")
    chosen = set(read_manifest(world.home.manifests / "v0002").rows["doc_id"].to_pylist())
    verdicts = dict(
        world.rows("SELECT doc_id, verdict FROM decisions WHERE selection = $selection", selection=selection)
    )
    assert chosen == {doc for doc, verdict in verdicts.items() if verdict == "selected"}


def test_several_ticks_end_in_the_same_manifest_as_one(
    after: AfterFiveFiles, copy_of_base: Callable[[str], World]
) -> None:
    world = copy_of_base("ticks")
    files = list(files_of_five(world).items())
    for tick in range(TICKS):
        for name, records in files[tick::TICKS]:
            world.deliver(name, records)
        world.ingest()
        world.curate()
    assert world.digests()[-1] == after.digest
    assert world.rows("SELECT version, parent FROM manifests ORDER BY version")[-1] == (
        f"v{TICKS + 1:04d}", f"v{TICKS:04d}",
    )  # fmt: skip
    for table in ("documents", "duplicates", "contamination", "clusters", "token_counts", "signals"):
        assert world.rows(f"SELECT * FROM {table} ORDER BY ALL") == after.world.rows(
            f"SELECT * FROM {table} ORDER BY ALL"
        )


def test_another_folder_and_another_cut_of_the_files_give_the_same_digest(finished: Finished, tmp_path: Path) -> None:
    world = World.make(tmp_path / "elsewhere" / "home")
    world.draw = False
    whole = world.home.inbox / "numbers/first.jsonl"
    lines = whole.read_text(encoding="utf-8").splitlines(keepends=True)
    middle = len(lines) // 2
    whole.write_text("".join(lines[middle:]), encoding="utf-8")
    whole.with_name("second.jsonl").write_text("".join(reversed(lines[:middle])), encoding="utf-8")
    world.ingest()
    world.curate()
    one, other = (read_manifest(place.home.manifests / "v0001") for place in (finished.world, world))
    assert one.rows["doc_id"].to_pylist() == other.rows["doc_id"].to_pylist()
    assert one.digest == other.digest


def test_a_withdrawn_file_is_gone_from_the_next_manifest_and_a_returning_state_gets_its_own(
    after: AfterFiveFiles, tmp_path: Path
) -> None:
    world = after.world.copy(tmp_path / "withdrawn")
    chosen = set(read_manifest(world.home.manifests / "v0002").rows["uri"].to_pylist())
    assert any(uri.startswith("files/later-") for uri in chosen), "the test needs a new document in v0002"
    for name in after.files:
        (world.home.inbox / name).unlink()
    world.ingest()
    result = world.curate()
    assert all(found.passed for found in result.get_asset_check_evaluations())
    [first, second, third] = world.digests()
    assert third == first != second
    assert world.rows("SELECT version, parent FROM manifests ORDER BY version")[-1] == ("v0003", "v0002")
    rows = read_manifest(world.home.manifests / "v0003").rows
    assert not any(uri.startswith("files/later-") for uri in rows["uri"].to_pylist())
    assert world.value("SELECT count(*) FROM duplicates ANTI JOIN documents d ON d.doc_id = keeper_id") == 0

    for name, records in after.files.items():
        world.deliver(name, records)
    world.ingest()
    result = world.curate()
    assert all(found.passed for found in result.get_asset_check_evaluations())
    assert world.digests() == [first, second, first, second]
    for table in ("documents", "duplicates", "clusters"):
        assert world.rows(f"SELECT * FROM {table} ORDER BY ALL") == after.world.rows(
            f"SELECT * FROM {table} ORDER BY ALL"
        )


def test_a_new_checkpoint_measures_anew_and_leaves_the_older_one_as_it_was(
    copy_of_base: Callable[[str], World],
) -> None:
    world = copy_of_base("checkpoint")
    old = world.checkpoint
    [new] = [path.name for path in world.home.checkpoints.iterdir() if path.name.startswith("v0001-")]
    judged = {
        "probes": "SELECT * FROM probes WHERE checkpoint = $old ORDER BY ALL",
        "models": "SELECT * FROM influence_models WHERE checkpoint = $old ORDER BY ALL",
        "manifests": "SELECT * FROM manifests WHERE checkpoint = $old ORDER BY ALL",
    }
    before = {name: world.rows(query, old=old) for name, query in judged.items()}
    rounds, runs = world.rows("SELECT * FROM bandit_rounds ORDER BY ALL"), world.runs()
    scored = world.value("SELECT sum(rows)::BIGINT FROM parts WHERE kind = 'scores'")

    world.register(new)
    assert world.checkpoint == new
    world.curate()

    processed = world.processed_since(runs)
    documents = world.value("SELECT count(*) FROM documents")
    assert processed["scores"] == documents
    assert {"probes", "influence_models", "bandit_rounds", "decisions", "mixtures", "manifests"} <= set(processed)
    assert {"embeddings", "signals", "duplicates", "clusters", "tokenizer", "token_counts"}.isdisjoint(processed)
    assert world.value("SELECT sum(rows)::BIGINT FROM parts WHERE kind = 'scores'") == scored + documents
    assert world.rows("SELECT version, parent, checkpoint FROM manifests ORDER BY version") == [
        ("v0001", None, old),
        ("v0002", "v0001", new),
    ]
    assert world.rows("SELECT parent, manifest FROM checkpoints WHERE checkpoint = $new", new=new) == [(old, "v0001")]
    compared = "SELECT former, warm, stale IS NOT NULL FROM influence_models WHERE checkpoint = $new"
    [model] = world.rows("SELECT model FROM influence_models WHERE checkpoint = $old", old=old)
    assert world.rows(compared, new=new) == [(*model, True, True)]
    assert {name: world.rows(query, old=old) for name, query in judged.items()} == before
    kept = (
        "SELECT * FROM bandit_rounds SEMI JOIN (SELECT selection FROM manifests WHERE checkpoint = $old) m"
        " USING (selection) ORDER BY ALL"
    )
    assert world.rows(kept, old=old) == rounds

    runs = world.runs()
    world.curate(old)  # looking at the frozen checkpoint again changes nothing
    assert world.runs() == runs and len(world.digests()) == 2


def test_an_influence_model_below_its_floor_is_not_used_and_the_manifest_says_so(
    copy_of_base: Callable[[str], World],
) -> None:
    world = copy_of_base("floor")
    settings = small_config().influence.model_copy(update={"spearman_floor": 0.999})
    world.configure(small_config(influence=settings.model_dump()))
    runs = world.runs()
    result = world.curate()
    assert world.value("SELECT influence_model_used FROM manifests WHERE version = 'v0002'") is False
    record = read_manifest(world.home.manifests / "v0002")
    assert record.inputs["influence_model_used"] is False
    assert verify_manifest(world.home.manifests / "v0002").ok
    outcomes = {found.check_name: found for found in result.get_asset_check_evaluations()}
    assert result.success and not outcomes["influence_model_above_floor"].passed
    assert outcomes["influence_model_above_floor"].severity.value == "WARN"
    assert all(found.passed for name, found in outcomes.items() if name != "influence_model_above_floor")
    [(used, reason)] = world.rows("SELECT used, reason FROM influence_models")
    assert used is False and "below the floor 0.999" in reason
    scores = world.rows(
        "SELECT DISTINCT d.score FROM decisions d JOIN manifests USING (selection) WHERE version = 'v0002'"
    )
    assert scores == [(None,)]
    assert world.processed_since(runs).get("scores") is None
    assert world.value("SELECT count(*) FROM costs WHERE stage = 'probes'") == 1  # the floor moves no probe


def test_a_changed_setting_of_a_judgement_needs_the_judgement_anew(copy_of_base: Callable[[str], World]) -> None:
    world = copy_of_base("settings")
    stricter = {**small_config().quality.gopher, "min_words": 40.0}
    world.configure(small_config(quality={"gopher": stricter}))
    result = world.curate(raise_on_error=False)
    [failure] = [event for event in result.all_events if event.is_step_failure]
    assert "documents have no signals of the present configuration" in str(failure.event_specific_data)
    assert world.digests() == [read_manifest(world.home.manifests / "v0001").digest]

    rejected = "SELECT count(*) FROM signals WHERE NOT gopher_passed"
    before = world.value(rejected)
    world.ingest_batch(world.value("SELECT DISTINCT batch FROM shards"))
    assert world.value(rejected) > before
    world.curate()
    assert len(world.digests()) == 2
    words = "SELECT min(words) FROM signals JOIN decisions USING (doc_id) JOIN manifests USING (selection)"
    assert world.value(f"{words} WHERE manifests.version = 'v0002' AND verdict = 'selected'") >= 40
