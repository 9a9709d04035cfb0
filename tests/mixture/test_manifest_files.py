import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from winnow.errors import UserError
from winnow.identity import digest, digest_file, ids_from_numpy
from winnow.mixture import (
    ROWS,
    Manifest,
    build_manifest,
    manifest_versions,
    next_version,
    read_manifest,
    verify_manifest,
    write_manifest,
)


def manifest(version: str = "v0001", count: int = 60, seed: int = 1) -> Manifest:
    rng = np.random.default_rng(seed)
    rows = pa.table(
        {
            "order": pa.array(np.arange(count), pa.int64()),
            "doc_id": ids_from_numpy(rng.integers(0, 256, (count, 16), dtype=np.uint8)),
            "uri": pa.array([f"a/{i % 3}.jsonl" for i in range(count)]),
            "row": pa.array(range(count), pa.int64()),
            "source": pa.array(["books" if i % 4 == 0 else "wéb" for i in range(count)]),
            "tokens": pa.array(rng.integers(1, 90, count), pa.int64()),
            "repeats": pa.array([1] * count, pa.int32()),
            "reason": pa.array([f"selected: rank {i}" for i in range(count)]),
        },
        schema=ROWS,
    )
    return build_manifest(
        rows,
        version=version,
        token_budget=6000,
        seed=7,
        configuration={"policy": "quad_ucb", "threshold": 0.1},
        inputs={"corpus": "c0"},
        weights={"books": 0.25, "wéb": 0.75},
        parent=None,
        snapshot=["p0", "p1"],
        funnel={"books": {"records": 20, "kept": 15}},
        control={"digest": "d0", "tokens": 5990},
        environment={"dtype": "float32"},
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_manifest(manifest(), tmp_path / "manifests")


def edit(folder: Path, consistent: bool = False, **changes: Any) -> None:
    """Change fields of manifest.json; ``consistent`` also mends its checksum, as a careful forger would."""
    path = folder / "manifest.json"
    record = {**json.loads(path.read_text()), **changes}
    if consistent:
        record["rows_sha256"] = digest_file(folder / "rows.parquet")
        record["checksum"] = digest({name: value for name, value in record.items() if name != "checksum"})
    path.write_text(json.dumps(record))


def rewrite(folder: Path, rows: pa.Table) -> None:
    """Replace the rows and mend both checksums, so that only the content can betray it."""
    pq.write_table(rows, folder / "rows.parquet")
    edit(folder, consistent=True)


def test_a_written_manifest_reads_back_whole_and_verifies(folder: Path) -> None:
    made, back = manifest(), read_manifest(folder)
    assert back.record() == made.record()
    assert back.rows.equals(made.rows)
    outcome = verify_manifest(folder)
    assert outcome.ok and outcome.problems == []
    assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", "rows.parquet"]


def test_a_flipped_byte_anywhere_in_the_rows_is_caught(folder: Path) -> None:
    path = folder / "rows.parquet"
    whole = path.read_bytes()
    for place in range(0, len(whole), len(whole) // 40):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        problems = verify_manifest(folder).problems
        assert any(problem.startswith("rows.parquet: was changed") for problem in problems), place
    path.write_bytes(whole)
    assert verify_manifest(folder).ok


def test_any_edit_of_the_record_is_caught(folder: Path) -> None:
    original = (folder / "manifest.json").read_text()
    for name in json.loads(original):
        edit(folder, False, **{name: "forged"})
        assert not verify_manifest(folder).ok, name
        (folder / "manifest.json").write_text(original)
    assert verify_manifest(folder).ok


def test_edited_tokens_are_named_even_when_the_checksum_was_mended(folder: Path) -> None:
    tokens = manifest().tokens
    edit(folder, consistent=True, tokens=tokens + 1)
    assert verify_manifest(folder).problems == [
        f"manifest.json, tokens: says {tokens + 1}, the rows have {tokens}",
    ]


@pytest.mark.parametrize("changes", [{"seed": 8}, {"configuration": {}}, {"inputs": {}}, {"token_budget": 6001}])
def test_a_semantic_field_cannot_be_changed_without_the_digest(folder: Path, changes: dict[str, Any]) -> None:
    edit(folder, consistent=True, **changes)
    (problem,) = verify_manifest(folder).problems
    assert problem.startswith("manifest.json, digest: ")


def test_a_source_that_does_not_add_up_is_named(folder: Path) -> None:
    sources = manifest().sources
    edit(folder, consistent=True, sources={**sources, "books": {**sources["books"], "documents": 1}})
    (problem,) = verify_manifest(folder).problems
    assert problem.startswith("manifest.json, source 'books': says {'documents': 1")


def test_a_dropped_row_is_caught_in_sums_order_and_digest(folder: Path) -> None:
    rows = manifest().rows
    rewrite(folder, pa.concat_tables([rows.slice(0, 10), rows.slice(11)]))
    problems = "\n".join(verify_manifest(folder).problems)
    assert "row 10: order is 11, expected 10" in problems
    assert "documents: says 60, the rows have 59" in problems
    assert "digest: says" in problems


def test_a_changed_cell_is_caught_by_the_digest_and_a_duplicate_by_its_rows(folder: Path) -> None:
    rows = manifest().rows
    reasons = rows.column("reason").to_pylist()
    reasons[5] = "because"
    rewrite(folder, rows.set_column(7, ROWS.field("reason"), pa.array(reasons)))
    (problem,) = verify_manifest(folder).problems
    assert problem.startswith("manifest.json, digest")
    ids = rows.column("doc_id").combine_chunks().storage.to_pylist()
    ids[8] = ids[2]
    twice = ids_from_numpy(np.frombuffer(b"".join(ids), dtype=np.uint8).reshape(-1, 16))
    rewrite(folder, rows.set_column(1, ROWS.field("doc_id"), twice))
    assert any(
        "row 8: document" in problem and "already row 2" in problem for problem in verify_manifest(folder).problems
    )


def test_rows_over_the_budget_are_caught(folder: Path) -> None:
    edit(folder, consistent=True, token_budget=5)
    assert any("over the budget of 5" in problem for problem in verify_manifest(folder).problems)


def test_rows_of_another_shape_are_caught(folder: Path) -> None:
    rewrite(folder, manifest().rows.drop_columns(["reason"]))
    assert "columns are" in verify_manifest(folder).problems[0]


@pytest.mark.parametrize("name", ["manifest.json", "rows.parquet"])
def test_a_missing_or_truncated_file_is_named(folder: Path, name: str) -> None:
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: len(whole) // 2])
    assert any(name in problem for problem in verify_manifest(folder).problems)
    (folder / name).unlink()
    assert any(name in problem for problem in verify_manifest(folder).problems)
    with pytest.raises(UserError, match=name):
        read_manifest(folder)


def test_a_renamed_folder_is_not_its_version(folder: Path) -> None:
    other = folder.rename(folder.parent / "v0009")
    assert any("the folder is 'v0009'" in problem for problem in verify_manifest(other).problems)


def test_versions_count_up_and_half_written_ones_do_not_count(tmp_path: Path) -> None:
    root = tmp_path / "manifests"
    assert (manifest_versions(root), next_version(root)) == ([], "v0001")
    for version in ("v0001", "v0002", "v10000"):
        write_manifest(manifest(version), root)
    (root / ".v0003-aa.partial").mkdir()
    assert manifest_versions(root) == ["v0001", "v0002", "v10000"]
    assert next_version(root) == "v10001"


def test_a_manifest_is_never_overwritten_and_writing_it_again_changes_nothing(folder: Path) -> None:
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}
    assert write_manifest(manifest(), folder.parent) == folder
    with pytest.raises(UserError, match="holds another manifest"):
        write_manifest(manifest(seed=2), folder.parent)
    assert {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()} == before


def test_a_version_that_leaves_the_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="v0001"):
        write_manifest(manifest("../v0001"), tmp_path)


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="no space"):
        write_manifest(manifest(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_killed_write_leaves_no_version_and_can_be_repeated(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys, pathlib; sys.path[:0] = [sys.argv[2], sys.argv[3]]\n"
        "import test_manifest_files as t\n"
        "os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "t.write_manifest(t.manifest(), pathlib.Path(sys.argv[1]))\n"
    )
    here = Path(__file__).parent
    command = [sys.executable, "-c", script, str(tmp_path), str(here), str(here.parents[1])]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert list(tmp_path.glob(".v-*.partial")) and manifest_versions(tmp_path) == []
    assert verify_manifest(write_manifest(manifest(), tmp_path)).ok
