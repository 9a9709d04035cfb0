"""Looking before comparing: what cannot fit is refused by name and number; thresholds show what they would do."""

from __future__ import annotations

import shutil
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import duckdb
import pytest
from small_corpus import SmallCorpus

from winnow.config import Duplicates
from winnow.config import Store as StoreSettings
from winnow.dedup.bands import plan_bands
from winnow.dedup.estimates import estimate
from winnow.dedup.sketch import make_plan
from winnow.errors import UserError
from winnow.home import Home
from winnow.stages import duplicate_plan
from winnow.stages.duplicate_plan import (
    Disk,
    disks,
    memory_bytes,
    plan_rows,
    refuse_what_cannot_fit,
    require_room,
    sample_of,
    threshold_sweep,
)
from winnow.store import memory
from winnow.store.store import Store

WORDS = [f"word{number}" for number in range(30)]


def variant(changed: int) -> str:
    """Return a text of 30 words of which the last ones differ: 26 shingles, ``26 - changed`` of them shared."""
    return " ".join([*WORDS[: 30 - changed], *(f"other{changed}x{number}" for number in range(changed))])


@pytest.fixture
def corpus(tmp_path: Path) -> SmallCorpus:
    corpus = SmallCorpus(tmp_path / "home")
    texts = [variant(changed) for changed in (0, 1, 2, 3)] + [f"quite another text about {word}" for word in WORDS]
    corpus.write("web/a.jsonl", [{"text": text} for text in texts])
    corpus.deliver()
    return corpus


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        ("2GB", 2 * 10**9), ("512MiB", 512 * 2**20), ("1.5 gb", 15 * 10**8), ("100000KB", 10**8), ("512M", 512 * 10**6),
        ("2 G", 2 * 10**9), ("2g", 2 * 10**9), (" .5gigabytes ", 5 * 10**8), ("1e3 MB", 10**9), ("none", None),
        ("-1", None),
    ],
)  # fmt: skip
def test_a_memory_limit_is_read_as_duckdb_reads_it(limit: str, expected: int | None) -> None:
    assert memory_bytes(limit) == expected
    with duckdb.connect() as connection:
        connection.execute("SET memory_limit = $limit", {"limit": limit})
        number, unit = connection.execute("SELECT current_setting('memory_limit')").fetchall()[0][0].split()
    scale = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "PiB": 2**50}[unit]
    assert float(number) * scale == pytest.approx(2**64 if expected is None else expected, rel=0.08)


@pytest.mark.parametrize("limit", ["800", "", "much", "3 parsecs", "1.2.3GB", "0%", "150%"])
def test_what_is_no_memory_limit_is_refused(limit: str) -> None:
    with pytest.raises(UserError, match=r"store\.memory_limit is"):
        memory_bytes(limit)


def test_a_share_of_memory_is_that_of_this_machine() -> None:
    whole = memory_bytes("100%")
    assert whole is not None and whole > 2**28
    assert memory_bytes("25%") == pytest.approx(whole / 4, abs=1)


def test_a_share_of_memory_is_of_what_the_control_groups_leave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place, content in (("box/memory.max", "max\n"), ("memory.max", f"{10**8}\n")):
        (tmp_path / "groups" / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "groups" / place).write_text(content)
    lines = tmp_path / "cgroup"
    lines.write_text("3:cpu:/other\n0::/box/inner\n")
    monkeypatch.setattr(memory, "GROUPS", tmp_path / "groups")
    files = memory._limit_files(lines)
    monkeypatch.setattr(memory, "_limit_files", lambda: files)
    assert memory_bytes("50%") == 5 * 10**7


def test_duckdb_gets_a_share_as_bytes(tmp_path: Path) -> None:
    with Store(Home(tmp_path), StoreSettings(memory_limit="50%")).scratch() as connection:
        found = connection.execute("SELECT current_setting('memory_limit')").fetchone()
    assert found is not None and found[0].endswith("iB")


def test_too_little_disk_or_memory_is_refused_with_the_numbers_and_the_mend() -> None:
    expected = estimate(1_000_000, 2_000, plan_bands(0.8), new_documents=500_000, threads=2)
    room = Disk("/there", sum(expected.parts.values()), 10**10)
    full = replace(room, free=100_000_000)
    said = r"1,000,000 documents of 2\.0 kB.* 500,000 of them new, may write 348\.0 MB below /there, where 100\.0 MB"
    with pytest.raises(UserError, match=said):
        refuse_what_cannot_fit(expected, [room, full], None)
    with pytest.raises(UserError, match=r"'verification' may need .* store\.memory_limit is 500\.0 MB; raise"):
        refuse_what_cannot_fit(expected, [room], 500_000_000)
    refuse_what_cannot_fit(expected, [room], 2 * 10**9)
    refuse_what_cannot_fit(expected, [], None)


def test_room_is_required_from_the_stores_own_counts(corpus: SmallCorpus, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make_plan(corpus.config.duplicates)
    expected = require_room(corpus.store, plan)
    assert (expected.documents, expected.new_documents, expected.sampled_pairs) == (34, 34, 0)
    total = corpus.store.query("SELECT sum(bytes) FROM documents")[0][0]
    assert expected.mean_bytes == pytest.approx(total / 34)
    usage = namedtuple("usage", "total used free")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: usage(10_000, 0, 10_000))
        with pytest.raises(UserError, match=r"where 10\.0 kB are free"):
            require_room(corpus.store, plan)
    monkeypatch.setattr(duplicate_plan, "memory_bytes", lambda _: 1_000)
    with pytest.raises(UserError, match=r"store\.memory_limit is 1\.0 kB"):
        require_room(corpus.store, plan)
    corpus.judge_duplicates()
    assert require_room(corpus.store, plan).new_documents == 0  # nothing to do is never refused


def test_what_is_written_is_weighed_where_it_is_written(tmp_path: Path) -> None:
    expected = estimate(10_000_000, 2_000, plan_bands(0.8))
    parts, scratch = sum(expected.parts.values()), sum(expected.scratch.values())
    assert parts > 10**9 and scratch > 10**9
    home = Home(tmp_path / "not" / "yet")
    (one,) = disks(Store(home, StoreSettings()), expected)
    assert (one.place, one.needed) == (str(tmp_path), parts + scratch)
    assert one.free == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.05)
    (one,) = disks(Store(home, StoreSettings(data="s3://bucket/parts")), expected)
    assert (one.place, one.needed) == (str(tmp_path), scratch)
    shm = Path("/dev/shm")
    if shm.is_dir() and shm.stat().st_dev != tmp_path.stat().st_dev:
        found = disks(Store(home, StoreSettings(data=str(shm / "winnow-data"))), expected)
        assert [(disk.place, disk.needed) for disk in found] == [(str(shm), parts), (str(tmp_path), scratch)]


def test_stored_signatures_are_the_sample(corpus: SmallCorpus, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus.judge_duplicates()
    plan = make_plan(corpus.config.duplicates)
    monkeypatch.setattr(duplicate_plan, "LEAST_SAMPLE", 5)
    for most, found in ((1_000, 34), (20, 20)):
        monkeypatch.setattr(duplicate_plan, "SAMPLE", most)
        with corpus.store.read("sketches") as connection:
            sample = sample_of(connection, plan)
        assert sample is not None and sample.pairs == found * (found - 1) // 2
    later = [f"a text that came later about {word}" for word in WORDS]
    corpus.write("web/b.jsonl", [{"text": text} for text in later])
    corpus.deliver()
    expected = require_room(corpus.store, plan)
    assert (expected.documents, expected.new_documents) == (64, 30)
    assert 0 < expected.sampled_pairs <= 20 * 19 // 2  # of those among the first 20 ids that are signed already


def test_a_row_of_the_plan_is_a_threshold_with_its_curve_and_cost() -> None:
    rows = plan_rows(Duplicates(), [0.7, 0.9], 1_000_000, 2_000)
    assert [(row["threshold"], row["configured"]) for row in rows] == [(0.7, False), (0.8, True), (0.9, False)]
    middle = rows[1]
    assert (middle["bands"], middle["rows"], middle["found at 0.8"]) == (17, 7, middle["recall"])
    assert [row["false candidates a document"] for row in rows] == sorted(
        (row["false candidates a document"] for row in rows), reverse=True
    )
    assert all(row["disk"] > 10**8 and row["memory"] > 10**8 for row in rows)


def test_a_threshold_that_no_plan_reaches_has_a_row_without_figures() -> None:
    rows = plan_rows(Duplicates(permutations=16, threshold=0.8, recall=0.98), [0.05], 1_000, 2_000)
    assert rows[0]["threshold"] == 0.05 and rows[0]["bands"] is None and rows[1]["bands"] is not None
    assert list(rows[0]) == list(rows[1])


def test_a_sweep_tells_what_higher_thresholds_remove(corpus: SmallCorpus) -> None:
    corpus.judge_duplicates()
    scheme = make_plan(corpus.config.duplicates).scheme
    with corpus.store.read("bands") as connection:
        rows = threshold_sweep(connection, corpus.config, scheme, [0.7, 0.85, 0.9, 0.95, 0.99])
    found = {row["threshold"]: row for row in rows}
    assert list(found) == [0.8, 0.85, 0.9, 0.95, 0.99]  # below the configured one nothing was looked for
    # Jaccard of the variants i < j: (26 - j) / (26 + j), 0.926, 0.857 and 0.793 for j = 1, 2, 3.
    assert [found[t]["removed"] for t in found] == [2, 2, 1, 0, 0]
    removed = corpus.store.query("SELECT count(*) FROM duplicates WHERE kind = 'near' AND doc_id <> keeper_id")[0][0]
    assert found[0.8]["removed"] == removed
    assert found[0.8]["pairs"] == corpus.store.query("SELECT count(*) FROM duplicate_pairs")[0][0]
    assert found[0.8]["largest group"] == 3 and found[0.99]["largest group"] == 1
    assert found[0.8]["share"] == round(removed / 34, 4)


def test_a_sweep_before_any_comparison_is_refused(corpus: SmallCorpus) -> None:
    with corpus.store.read("bands") as connection, pytest.raises(UserError, match="winnow run"):
        threshold_sweep(connection, corpus.config, "no such scheme", [0.9])
