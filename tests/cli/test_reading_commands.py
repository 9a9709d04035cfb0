"""``winnow sql | manifest | explain | config``: they read the published store, from any directory."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path

import pytest
from shell import Shell
from worlds import LOW_QUALITY, NEAR_PAIR, Finished, tree

from winnow.cli import main


@pytest.fixture
def shell(finished: Finished, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(finished.world.home.root, capsys)


def one_sentence(err: str) -> str:
    assert err.startswith("winnow: ") and err.count("\n") == 1, err
    return err.strip()


# -- sql --------------------------------------------------------------------------------------------------------------


def test_sql_prints_an_aligned_table(shell: Shell) -> None:
    code, out, _ = shell("sql", "SELECT source, count(*) AS documents FROM documents GROUP BY ALL ORDER BY ALL")
    lines = out.splitlines()
    assert code == 0 and lines[0].split() == ["source", "documents"] and set(lines[1]) == {"-", " "}
    assert [line.split()[0] for line in lines[2:]] == ["files", "numbers", "programs"]


def test_sql_prints_csv_that_a_csv_reader_understands(shell: Shell) -> None:
    code, out, _ = shell("sql", "SELECT 'a,\"b\"' AS text, NULL AS nothing, 1.5 AS number", "--format", "csv")
    assert code == 0
    assert list(csv.reader(io.StringIO(out))) == [["text", "nothing", "number"], ['a,"b"', "", "1.5"]]


def test_sql_prints_json_as_a_list_of_objects(shell: Shell) -> None:
    rows = shell.json("sql", "SELECT doc_id, source, influence, gopher_passed FROM scores_wide ORDER BY doc_id LIMIT 3")
    assert len(rows) == 3 and set(rows[0]) == {"doc_id", "source", "influence", "gopher_passed"}
    assert shell.json("sql", "SELECT 1 AS one WHERE false") == []
    odd = shell.json(
        "sql",
        "SELECT 'nan'::DOUBLE AS nan, [1, 2] AS list, {'a': DATE '2026-01-02'} AS struct, 2.5::DECIMAL(5, 2) AS number",
    )
    assert odd == [{"nan": None, "list": [1, 2], "struct": {"a": "2026-01-02"}, "number": 2.5}]


@pytest.mark.parametrize(
    "query", ["SELEC 1", "SELECT no_such FROM documents", "SELECT * FROM no_such_table", "SELECT 'x'::INTEGER"]
)
def test_a_bad_query_is_one_sentence_and_exit_code_2(shell: Shell, query: str) -> None:
    code, out, err = shell("sql", query)
    assert (code, out) == (2, "")
    assert one_sentence(err).startswith("winnow: the query failed: ")


def test_sql_cannot_write(shell: Shell) -> None:
    before = tree(shell.home)
    for statement in ("DELETE FROM documents", "CREATE TABLE mine AS SELECT 1", "INSERT INTO meta VALUES ('a', 'b')"):
        code, _, err = shell("sql", statement)
        assert code == 2 and "read-only" in err
    assert tree(shell.home) == before


def test_sql_at_a_manifest_answers_for_the_store_that_it_was_made_from(shell: Shell) -> None:
    query = (
        "SELECT reason, count(*) AS documents FROM decisions JOIN documents USING (doc_id) GROUP BY ALL ORDER BY ALL"
    )
    assert shell.json("sql", query, "--at", "v0001") == shell.json("sql", query) != []
    assert shell.json("sql", "SELECT count(*) AS n FROM validations", "--at", "v0001") == [{"n": 0}]  # they came later
    assert shell.json("sql", "SELECT count(*) AS n FROM validations")[0]["n"] > 0
    code, _, err = shell("sql", query, "--at", "v0099")
    assert code == 2 and "v0001" in one_sentence(err)


def test_sql_works_from_another_directory(
    finished: Finished, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WINNOW_HOME", str(finished.world.home.root))
    assert (
        main(
            [
                "sql",
                "SELECT count(*) AS documents, count(text) AS texts FROM documents JOIN texts USING (doc_id)",
                "--format",
                "csv",
            ]
        )
        == 0
    )
    documents, texts = capsys.readouterr().out.splitlines()[1].split(",")
    assert documents == texts and int(texts) > 150
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments", [("sql", "SELECT 1"), ("manifest", "list"), ("manifest", "show", "v0001"), ("explain", "someone")]
)
def test_before_there_is_a_store_reading_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    code, out, err = Shell(tmp_path / "nothing", capsys)(*arguments)
    assert (code, out) == (2, "")
    assert one_sentence(err)
    assert not (tmp_path / "nothing").exists()


# -- manifest ---------------------------------------------------------------------------------------------------------


def test_manifest_list_names_version_digest_and_parent(shell: Shell, finished: Finished) -> None:
    [row] = shell.json("manifest", "list")
    assert (row["version"], row["digest"], row["parent"]) == ("v0001", finished.world.digests()[0], None)
    code, out, _ = shell("manifest", "list")
    assert code == 0 and "v0001" in out


def test_manifest_show_prints_sources_funnel_and_inputs(shell: Shell) -> None:
    code, out, _ = shell("manifest", "show", "v0001")
    assert code == 0
    for expected in ("\nSources\n", "\nFunnel (records)\n", "\nInputs\n", "exact_duplicate", "checkpoint", "control"):
        assert expected in out
    [record] = shell.json("manifest", "show", "v0001")
    assert record["version"] == "v0001" and record["token_budget"] == 3_000


def test_manifest_verify_passes_for_what_was_written(shell: Shell, finished: Finished) -> None:
    code, out, _ = shell("manifest", "verify", "v0001")
    assert code == 0 and finished.world.digests()[0] in out
    assert shell.json("manifest", "verify", "v0001")[0]["ok"] is True


@pytest.mark.parametrize("file", ["manifest.json", "rows.parquet"])
def test_manifest_verify_exits_1_after_tampering(
    finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str], file: str
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    shutil.copytree(finished.world.home.manifests, tmp_path / "home" / "manifests")
    path = tmp_path / "home" / "manifests" / "v0001" / file
    if file == "manifest.json":
        path.write_text(path.read_text().replace('"token_budget": 3000', '"token_budget": 3001'))
    else:
        rows = pq.read_table(path)
        pq.write_table(pa.concat_tables([rows.slice(1), rows.slice(0, 1)]), path)
    shell = Shell(tmp_path / "home", capsys)
    code, out, _ = shell("manifest", "verify", "v0001")
    assert code == 1 and "does not verify" in out and file in out
    code, out, _ = shell("manifest", "verify", "v0001", "--format", "json")
    assert code == 1 and json.loads(out)[0]["ok"] is False


def test_an_unknown_version_is_one_sentence_that_names_those_there_are(shell: Shell) -> None:
    for action in ("show", "verify"):
        code, _, err = shell("manifest", action, "v0099")
        assert code == 2 and "v0001" in one_sentence(err)


# -- explain ----------------------------------------------------------------------------------------------------------


def original_id(finished: Finished, reason: str) -> str:
    return finished.world.value(
        "SELECT min(original_id) FROM decisions JOIN documents USING (doc_id) WHERE reason = $reason",
        reason=reason,
    )


def test_explain_a_selected_document_shows_its_place_and_its_round(shell: Shell, finished: Finished) -> None:
    name = original_id(finished, "selected")
    [found] = shell.json("explain", name)
    assert found["decision"][0]["verdict"] == "selected" and found["manifest"]["version"] == "v0001"
    assert found["manifest_row"][0]["reason"] and found["manifests"] == ["v0001"]
    assert found["rounds"] and sum(pull["tokens_granted"] or 0 for pull in found["rounds"]) > 0
    for evidence in ("signals", "tokens", "cluster", "scores", "occurrences"):
        assert found[evidence], evidence
    code, out, _ = shell("explain", name)
    assert code == 0 and "verdict    selected in v0001" in out and "in training" in out and "round " in out


def test_explain_a_near_duplicate_names_the_document_that_is_kept(shell: Shell, finished: Finished) -> None:
    name = original_id(finished, "near_duplicate")
    [found] = shell.json("explain", name)
    keeper = found["decision"][0]["matched_doc"]
    assert found["duplicates"][0]["keeper_id"] == keeper != found["document"]["doc_id"]
    assert keeper in {pair["other"] for pair in found["duplicate_pairs"]}
    code, out, _ = shell("explain", name)
    assert code == 0 and f"the kept document is {keeper}" in out and "Jaccard" in out
    assert {NEAR_PAIR[0], NEAR_PAIR[1]} & {name, *(pair["original_id"] for pair in found["duplicate_pairs"])}


def test_explain_a_low_quality_document_names_the_rule_that_failed(shell: Shell) -> None:
    code, out, _ = shell("explain", LOW_QUALITY)
    assert code == 0 and "verdict    rejected in v0001, decided by signals: low_quality" in out
    assert "Gopher: fails" in out


def test_explain_takes_the_uuid_as_well_as_the_files_own_id(shell: Shell, finished: Finished) -> None:
    doc = str(finished.world.value("SELECT doc_id FROM documents WHERE original_id = $name", name=LOW_QUALITY))
    assert shell("explain", doc) == shell("explain", LOW_QUALITY)
    assert shell("explain", doc.upper()) == shell("explain", doc)


def test_explain_shows_every_place_of_a_copied_text(shell: Shell) -> None:
    [found] = shell.json("explain", "copied")
    assert len(found["occurrences"]) == 2 and found["document"]["dup_count"] == 2
    assert {place["source"] for place in found["occurrences"]} == {"files", "programs"}


def test_explain_an_ambiguous_id_lists_what_it_may_mean(
    shell: Shell, finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world = finished.world.copy(tmp_path / "home")
    with world.store.write() as connection:
        connection.execute("UPDATE occurrences SET original_id = 'same' WHERE row < 2")
    world.store.publish()
    code, _, err = Shell(world.home.root, capsys)("explain", "same")
    assert code == 2 and "'same' is the id of several documents" in one_sentence(err)


def test_explain_an_unknown_document_or_version_is_one_sentence(shell: Shell) -> None:
    for arguments in (
        ("explain", "nobody"),
        ("explain", "00000000-0000-0000-0000-000000000000"),
        ("explain", LOW_QUALITY, "--manifest", "v0099"),
    ):
        code, _, err = shell(*arguments)
        assert code == 2 and one_sentence(err)


# -- config -----------------------------------------------------------------------------------------------------------


def test_config_prints_what_is_in_force_in_a_form_that_reads_back(shell: Shell, tmp_path: Path) -> None:
    from winnow.config import load_config

    code, out, _ = shell("config")
    (tmp_path / "winnow.toml").write_text(out)
    assert code == 0 and load_config(tmp_path / "winnow.toml") == load_config(shell.home / "winnow.toml")
    [settings] = shell.json("config")
    assert settings["selection"]["budget_tokens"] == 3_000


def test_config_of_a_new_home_is_all_defaults_and_creates_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = Shell(tmp_path / "new", capsys)("config")
    assert code == 0 and "every value is a default" in out and not (tmp_path / "new").exists()
