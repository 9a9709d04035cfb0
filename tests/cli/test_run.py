"""``winnow run``: what is wrong is said in one sentence before anything is written; what is broken holds up nothing."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from worlds import Finished, docstrings, small_config, tree, write_records

from winnow.cli import main
from winnow.config import load_config, save_config
from winnow.home import Home
from winnow.store.published import open_published
from winnow.store.store import open_store
from winnow.store.turns import file_turn


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a run set its variables and paths for this process, and take them back."""
    for name in ("WINNOW_HOME", "DAGSTER_HOME", "DAGSTER_DISABLE_TELEMETRY", "TOKENIZERS_PARALLELISM"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    monkeypatch.setenv("OMP_WAIT_POLICY", os.environ.get("OMP_WAIT_POLICY", "PASSIVE"))
    monkeypatch.setattr(sys, "path", list(sys.path))


class Case:
    """A folder with files to run on and a home that does not exist yet."""

    def __init__(self, root: Path) -> None:
        self.root, self.home = root, Home.from_environment(root / "home")
        texts = [{"id": name, "text": text} for name, text in docstrings("statistics")]
        write_records(root / "files" / "news" / "a.jsonl", texts[:12])
        write_records(root / "files" / "law" / "b.jsonl", texts[12:20])
        items = [{"id": name, "text": text} for name, text in docstrings("difflib")]
        self.reference = write_records(root / "reference.jsonl", items)
        self.corpus = str(root / "files" / "*" / "*.jsonl")

    def run(self, *arguments: str) -> int:
        return main(["--home", str(self.home.root), "run", *arguments])


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


def refused(case: Case, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run, and return the one sentence that says why not; nothing may have been written."""
    before = tree(case.root)
    existed = case.home.root.exists()
    code = case.run(*arguments)
    printed = capsys.readouterr()
    assert code == 2 and printed.out == ""
    assert printed.err.startswith("winnow: ") and printed.err.count("\n") == 1, printed.err
    assert tree(case.root) == before and case.home.root.exists() == existed
    return printed.err


def test_no_corpus_at_all(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    assert "inbox" in refused(case, capsys, "--reference", str(case.reference))
    case.home.inbox.mkdir(parents=True)
    assert "no corpus" in refused(case, capsys, "--reference", str(case.reference))


def test_a_glob_that_matches_nothing(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    glob = str(case.root / "files" / "*" / "*.parquet")
    assert glob in refused(case, capsys, "--corpus", glob, "--reference", str(case.reference))


def test_no_reference_is_named(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--reference FILE" in refused(case, capsys, "--corpus", case.corpus)


def test_a_reference_that_does_not_exist(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    missing = str(case.root / "nowhere.jsonl")
    assert missing in refused(case, capsys, "--corpus", case.corpus, "--reference", missing)


@pytest.mark.parametrize("content", ["", '{"text": ""}\n', '{"id": "no text"}\n'])
def test_an_empty_reference(case: Case, capsys: pytest.CaptureFixture[str], content: str) -> None:
    empty = case.root / "empty.jsonl"
    empty.write_text(content)
    assert str(empty) in refused(case, capsys, "--corpus", case.corpus, "--reference", str(empty))


def test_a_budget_larger_than_the_pool(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(case, capsys, "--corpus", case.corpus, "--reference", str(case.reference), "--budget", "2M")
    assert "2,000,000 tokens is larger than the pool" in said


def test_an_unknown_encoder(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    save_config(small_config(encoder={"name": "/no/such/encoder"}), case.home.config)
    said = refused(case, capsys, "--corpus", case.corpus, "--reference", str(case.reference), "--budget", "500")
    assert "/no/such/encoder" in said


def test_an_unknown_key_in_the_configuration(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    case.home.root.mkdir()
    case.home.config.write_text("[selection]\nbuget_tokens = 5\n")
    said = refused(case, capsys, "--corpus", case.corpus, "--reference", str(case.reference))
    assert "unknown key 'selection.buget_tokens'" in said and "budget_tokens" in said


def test_a_bad_threshold_in_the_configuration(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    save_config(small_config(quality={"gopher": {"min_wrods": 3.0}}), case.home.config)
    assert "min_wrods" in refused(case, capsys, "--corpus", case.corpus, "--until", "signals")


def test_a_checkpoint_that_does_not_exist(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(
        case, capsys, "--corpus", case.corpus, "--reference", str(case.reference), "--checkpoint", "step-1",
        "--budget", "500",
    )  # fmt: skip
    assert "--checkpoint step-1" in said


def test_a_project_that_is_no_checkout(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(case, capsys, "--corpus", case.corpus, "--until", "corpus", "--project", str(case.root))
    assert "no Winnow checkout" in said


@pytest.mark.parametrize(
    "arguments", [("--budget", "none"), ("--budget", "0"), ("--until", "lunch"), ("--budget", "-5")]
)
def test_an_impossible_argument_is_refused_by_the_parser(
    case: Case, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    with pytest.raises(SystemExit) as ended:
        case.run("--corpus", case.corpus, *arguments)
    assert ended.value.code == 2 and not case.home.root.exists()
    assert arguments[0] in capsys.readouterr().err


def test_a_budget_may_be_written_as_people_write_it() -> None:
    from winnow.cli import parser

    for text, tokens in (("2M", 2_000_000), ("1.5k", 1_500), ("3_000", 3_000), ("12,000", 12_000), ("1G", 10**9)):
        assert parser().parse_args(["run", "--budget", text]).budget == tokens


def test_until_corpus_needs_no_reference_and_keeps_the_command_line_in_the_configuration(
    case: Case, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(case.root)
    assert case.run("--corpus", "files/*/*.jsonl", "--until", "corpus") == 0
    [location] = load_config(case.home.config).corpus.locations
    assert location.root == str(case.root / "files")
    with open_published(case.home) as connection:
        counted = connection.execute("SELECT source, count(*) FROM occurrences GROUP BY ALL ORDER BY ALL").fetchall()
        assert counted == [("law", 8), ("news", 12)]
        assert connection.execute("SELECT count(*) FROM signals").fetchone() == (0,)
    assert sorted(path.name for path in case.root.iterdir()) == ["files", "home", "reference.jsonl"]

    capsys.readouterr()
    monkeypatch.chdir("/")
    assert case.run("--until", "corpus") == 0  # the configuration remembers the files
    assert "nothing to do" in capsys.readouterr().err
    with open_published(case.home) as connection:
        assert connection.execute("SELECT count(*) FROM costs").fetchone() == (1,)


def test_a_run_whose_state_cannot_be_published_fails(
    case: Case, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert case.run("--corpus", case.corpus, "--until", "corpus") == 0
    first = case.home.published.stat().st_ino
    texts = [{"id": name, "text": text} for name, text in docstrings("difflib")]
    write_records(case.root / "files" / "news" / "c.jsonl", texts[:5])
    settings = load_config(case.home.config)
    short = settings.store.model_copy(update={"lock_wait_seconds": 0.05})
    save_config(settings.model_copy(update={"store": short}), case.home.config)
    with file_turn(case.home.store, 1, "publish"):
        assert case.run("--until", "corpus") == 2
    assert "stayed locked" in capsys.readouterr().err
    assert case.home.published.stat().st_ino == first
    assert case.run("--until", "corpus") == 0
    with open_published(case.home) as connection:
        assert connection.execute("SELECT count(*) FROM occurrences").fetchone() == (25,)


def test_broken_files_among_good_ones_hold_up_nothing_and_are_counted(
    case: Case, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = case.root / "files" / "news"
    good = json.dumps({"text": "A good record among bad ones stays a good record."})
    (folder / "mixed.jsonl").write_text(f'{good}\n{{"text": 5}}\n{{"text": \n{good[:-2]} Twice."}}\n')
    (folder / "broken.jsonl").write_text("".join(f"{{{number}\n" for number in range(40)))
    (folder / "broken.jsonl.gz").write_bytes(b"\x1f\x8b no gzip at all")
    assert case.run("--corpus", str(case.root / "files" / "*" / "*"), "--until", "corpus") == 0
    said = capsys.readouterr().err
    store = open_store(case.home)
    quarantined = store.query("SELECT coalesce(sum(records), 0)::BIGINT FROM quarantine")[0][0]
    assert quarantined >= 43 and f"{quarantined} quarantined" in said
    assert store.query("SELECT shard FROM shards WHERE failed") == [("news/broken.jsonl",)]
    assert store.query("SELECT quarantined FROM shards WHERE shard = 'news/broken.jsonl.gz'") == [(1,)]
    assert store.query(
        "SELECT records, occurrences, quarantined, failed FROM shards WHERE shard = 'news/mixed.jsonl'"
    ) == [(4, 2, 2, False)]
    assert store.query("SELECT count(*) FROM occurrences") == [(22,)]
    assert "broken.jsonl failed: too many bad records" in said


def test_two_globs_share_a_root_and_a_source_is_a_folder(case: Case) -> None:
    news, law = (str(case.root / "files" / name / "*.jsonl") for name in ("news", "law"))
    assert case.run("--corpus", news, "--corpus", f"{case.root}/files/news/../law/*.jsonl", "--until", "corpus") == 0
    assert open_store(case.home).query("SELECT DISTINCT source FROM documents ORDER BY ALL") == [("law",), ("news",)]
    assert case.run("--corpus", f"{news} {law}", "--until", "corpus") == 0
    assert case.run("--corpus", str(case.root / "files" / "{news,law}" / "*.jsonl"), "--until", "corpus") == 0
    assert open_store(case.home).query("SELECT count(*), count(DISTINCT batch) FROM shards") == [(2, 1)]


def test_globs_that_lie_far_apart_read_nothing_that_lies_between(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    from winnow.text import locations

    (case.root / "elsewhere" / "deep").mkdir(parents=True)
    write_records(case.root / "other" / "place" / "c.jsonl", [{"text": "A text in another place altogether."}])
    listed: list[Path] = []
    listing = locations._entries

    def watched(folder: Path) -> tuple[list[os.DirEntry[str]], tuple[int, int]]:
        listed.append(folder)
        return listing(folder)

    monkeypatch.setattr(locations, "_entries", watched)
    arguments = (
        "--corpus",
        str(case.root / "files" / "news" / "*.jsonl"),
        "--corpus",
        str(case.root / "other" / "place" / "*"),
    )
    assert case.run(*arguments, "--until", "corpus") == 0
    assert {path.relative_to(case.root).as_posix() for path in listed} == {
        ".", "files", "files/news", "other", "other/place",
    }  # fmt: skip
    assert open_store(case.home).query("SELECT shard FROM shards ORDER BY ALL") == [
        ("files/news/a.jsonl",), ("other/place/c.jsonl",),
    ]  # fmt: skip


@pytest.mark.slow
def test_the_whole_job_runs_from_a_command_and_goes_on_where_it_was_left(
    finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    world = finished.world.copy(tmp_path / "home")
    home = ["--home", str(world.home.root)]
    assert main([*home, "run"]) == 0
    printed = capsys.readouterr()
    assert "nothing was recomputed" in printed.out and world.digests()[0] in printed.out
    for stage in ("signals", "sketches", "embeddings", "clusters", "tokenizer", "scores", "decisions", "manifests"):
        assert f"{stage}: nothing to do" in printed.err
    assert world.runs() == finished.world.runs()

    costs = world.value("SELECT count(*) FROM costs")
    assert main([*home, "run", "--budget", "2k", "--until", "selection"]) == 0
    assert world.value("SELECT count(*) FROM costs") == costs + 2
    assert len(world.digests()) == 1
