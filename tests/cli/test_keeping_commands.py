"""``winnow doctor | gc | backup | restore | takedown`` as a user types them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from kept import TEXTS, add_manifest, filled, small
from shell import Shell

from winnow.config import Store as StoreSettings
from winnow.identity import doc_id


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    corpus = filled(tmp_path_factory.mktemp("base") / "home")
    add_manifest(corpus, "v0001")
    corpus.store.publish()
    return corpus.home.root


@pytest.fixture
def shell(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(shutil.copytree(base, tmp_path / "home"), capsys)


def test_doctor_prints_a_line_a_check_and_exits_0_or_1(shell):
    code, out, err = shell("doctor", "--deep")
    assert (code, err) == (0, "")
    assert all(line.split()[1] in ("ok", "note") for line in out.splitlines()[2:24]) and "text_ids" in out
    part = next((shell.home / "store" / "parts" / "texts").glob("*.parquet"))
    part.unlink()
    code, out, _ = shell("doctor")
    assert code == 1
    assert f"parts_present: 1 found\n  {part} is missing\n  mend: deliver the files" in out
    found = {row["name"]: row for row in shell.json("doctor", code=1)}
    assert (found["parts_present"]["ok"], found["parts_present"]["found"]) == (False, 1)
    assert found["records"] == {**found["records"], "ok": True, "examples": []}


def test_gc_prints_what_goes_and_how_many_bytes(shell):
    stray = shell.home / "store" / "parts" / "texts" / f"{'0' * 32}.parquet"
    stray.write_bytes(b"12345")
    assert shell("gc")[1] == "removed nothing: 0 bytes\n"
    code, out, _ = shell("gc", "--dry-run", "--keep-days", "0")
    assert code == 0 and f"5  {stray}" in out and "would remove 1 part of texts: 5 bytes" in out
    assert shell.json("gc", "--keep-days", "0") == [{"what": "part of texts", "place": str(stray), "bytes": 5}]
    assert not stray.exists()
    for bad in ("-1", "nan", "soon"):
        with pytest.raises(SystemExit):
            shell("gc", "--keep-days", bad)


def test_backup_and_restore_bring_a_home_to_another_place(shell, tmp_path):
    code, out, _ = shell("backup", str(tmp_path / "backups"))
    assert code == 0 and "copied" in out
    code, out, err = shell("restore", str(tmp_path / "backups"), "--home", str(tmp_path / "new"))
    assert (code, err) == (0, "") and "all verified" in out and "PROBLEM" not in out
    assert shell("sql", "SELECT count(*) FROM documents") == Shell(tmp_path / "new", shell.capsys)(
        "sql", "SELECT count(*) FROM documents"
    )
    code, out, err = shell("restore", str(tmp_path / "backups"))
    assert (code, out) == (2, "") and "is not empty" in err and err.count("\n") == 1


def test_lineage_leads_from_a_manifest_row_to_the_file_the_record_and_the_run(shell):
    corpus = small(shell.home, StoreSettings())
    question = "SELECT path, row, run_id, unchanged FROM lineage WHERE version = 'v0001' ORDER BY path, row"
    rows = shell.json("sql", question)
    web, books = (
        str(corpus.store.query("SELECT path FROM shards WHERE source = $s", {"s": s})[0][0]) for s in ("web", "books")
    )
    assert [(row["path"], row["row"]) for row in rows] == [
        *((books, at) for at in range(3)),
        *((web, at) for at in range(3)),
    ]
    assert {(row["run_id"], row["unchanged"]) for row in rows} == {("run", True)}
    corpus.write("web/a.jsonl", [{"text": TEXTS[6]}])
    corpus.remove("books/a.jsonl")
    corpus.deliver()
    corpus.store.publish()
    assert [row["unchanged"] for row in shell.json("sql", question)] == [False] * 3 + [None] * 3
    assert shell.json("sql", "--at", "v0001", question) == rows


def test_a_takedown_is_tried_made_listed_explained_and_lifted(shell):
    demand = ("--url", "http://web/1", "--reason", "asked by its author")
    code, out, _ = shell("takedown", "add", *demand, "--dry-run")
    assert (
        code == 0 and "would add 1 demands: 1 documents and 1 occurrences would go" in out and "v0001 (1 rows)" in out
    )
    code, out, _ = shell("takedown", "add", *demand)
    assert code == 0 and "added 1 demands: 1 documents and 1 occurrences went" in out and "snapshots stay" in out
    assert shell.json("sql", "SELECT count(*) AS n FROM documents")[0]["n"] == 5
    (row,) = shell.json("takedown", "list")
    assert (row["value"], row["documents"], row["manifests"]) == ("http://web/1", 1, {"v0001": 1})
    assert "v0001 (1 rows)" in shell("takedown", "list")[1]
    code, out, _ = shell("explain", str(doc_id(TEXTS[1])))
    assert code == 0 and "withdrawn  by url http://web/1 at" in out and ": asked by its author" in out
    assert (
        "stood in   web/a.jsonl row 1, id w1" in out and "manifest   v0001 has it" in out and "read by run run" in out
    )
    assert shell("explain", "w1")[1] == out
    code, out, _ = shell("takedown", "remove", "--url", "http://web/1")
    assert code == 0 and "web/a.jsonl" in out and "when their files are read again" in out
    assert shell("takedown", "list")[1] == "no takedowns\n"


def test_a_list_of_takedowns_takes_the_reason_for_all_that_have_none(shell, tmp_path):
    path = tmp_path / "list.csv"
    path.write_text(f"kind,value,reason\nurl,http://web/0,own\ndoc_id,{doc_id(TEXTS[4])},\n")
    assert shell("takedown", "add", "--list", str(path), "--reason", "court order")[0] == 0
    assert {row["reason"] for row in shell.json("takedown", "list")} == {"own", "court order"}


@pytest.mark.parametrize(
    "arguments",
    [
        ("takedown", "add"),
        ("takedown", "add", "--doc-id", "w1"),
        ("takedown", "add", "--list", "/no/such/list.csv"),
        ("takedown", "remove", "--url", "http://never"),
        ("restore", "/no/such/folder"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(shell, arguments):
    code, out, err = shell(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("winnow: ") and err.count("\n") == 1


@pytest.mark.parametrize("arguments", [("doctor",), ("gc",), ("backup", "x"), ("takedown", "list")])
def test_without_a_store_nothing_is_made(tmp_path, capsys, arguments):
    code, out, err = Shell(tmp_path / "none", capsys)(*arguments)
    assert (code, out) == (2, "") and "there is no store in" in err
    assert not (tmp_path / "none").exists()
