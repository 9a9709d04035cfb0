"""``winnow similar`` and ``winnow duplicates``: answers from the published file, right to the last digit."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest
from shell import Shell

sys.path.append(str(Path(__file__).parents[1] / "stages"))

from small_corpus import SmallCorpus

from winnow.cli import similar as command
from winnow.config import Config, save_config
from winnow.identity import doc_id
from winnow.stages import similar as stage

WORDS = [f"word{number}" for number in range(40)]  # 36 shingles
TEXT = " ".join(WORDS)
LONGER = " ".join([*WORDS, "more"])  # 36/37
OTHER_END = " ".join([*WORDS[:-2], "quite", "else"])  # 34/38 with TEXT, 34/39 with LONGER
FAR = " ".join([*WORDS[:12], *(f"far{number}" for number in range(28))])  # 8/64
MARKS = "!!! ???"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    corpus = SmallCorpus(tmp_path_factory.mktemp("similar") / "home")
    corpus.write(
        "web/a.jsonl",
        [
            {"text": TEXT, "id": "w0", "url": "http://web/0"},
            {"text": LONGER, "id": "w1"},
            {"text": FAR, "id": "w2"},
            {"text": MARKS, "id": "w3"},
            *({"text": f"nothing like number {number} of {number * 7}"} for number in range(30)),
        ],
    )
    corpus.write("books/b.jsonl", [{"text": TEXT, "id": "b0"}, {"text": OTHER_END, "id": "b1"}])
    corpus.deliver()
    corpus.judge_duplicates()
    corpus.store.publish()
    save_config(corpus.config, corpus.home.config)
    return corpus.home.root


@pytest.fixture
def shell(home: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(home, capsys)


def found(shell: Shell, *arguments: str) -> list[tuple[str, float]]:
    names = {str(doc_id(text)): name for name, text in globals().items() if isinstance(text, str) and name.isupper()}
    return [(names[row["doc_id"]], row["jaccard"]) for row in shell.json("similar", *arguments)]


def one_sentence(err: str) -> str:
    assert err.startswith("winnow: ") and err.count("\n") == 1, err
    return err.strip()


# -- similar ----------------------------------------------------------------------------------------------------------


def test_a_stored_text_finds_itself_and_its_near_duplicates_by_falling_exact_similarity(shell: Shell) -> None:
    assert found(shell, TEXT) == [("TEXT", 1.0), ("LONGER", 36 / 37), ("OTHER_END", 34 / 38)]
    assert found(shell, LONGER) == [("LONGER", 1.0), ("TEXT", 36 / 37), ("OTHER_END", 34 / 39)]


def test_a_text_that_the_store_has_not_finds_what_resembles_it(shell: Shell) -> None:
    unknown = " ".join(["first", *WORDS])
    assert found(shell, unknown) == [("TEXT", 36 / 37), ("LONGER", 36 / 38), ("OTHER_END", 34 / 39)]
    assert found(shell, "something that nobody has ever written into this little store of texts") == []


def test_a_row_tells_where_the_text_occurs_and_whether_it_is_kept(shell: Shell) -> None:
    first, second, third = shell.json("similar", TEXT)
    assert (first["match"], second["match"]) == ("exact", "near")
    assert [(one["shard"], one["row"], one["original_id"], one["url"]) for one in first["occurrences"]] == [
        ("books/b.jsonl", 0, "b0", None),
        ("web/a.jsonl", 0, "w0", "http://web/0"),
    ]
    kept = [row for row in (first, second, third) if row["kept"]]
    assert len(kept) == 1 and {row["keeper_id"] for row in (first, second, third)} == {kept[0]["doc_id"]}
    assert first["excerpt"] == TEXT[:160] and first["source"] == "books"


def test_a_threshold_and_a_limit_are_kept_to(shell: Shell) -> None:
    assert found(shell, TEXT, "--threshold", "0.9") == [("TEXT", 1.0), ("LONGER", 36 / 37)]
    assert found(shell, TEXT, "--limit", "1") == [("TEXT", 1.0)]
    assert found(shell, TEXT, "--threshold", "1") == [("TEXT", 1.0)]


def test_a_table_says_how_sure_it_is(shell: Shell) -> None:
    code, out, err = shell("similar", TEXT, "--limit", "2")
    lines = out.splitlines()
    assert (code, err) == (0, "")
    assert lines[0].split() == ["jaccard", "match", "kept", "doc_id", "source", "original_id", "place", "url", "copies"]
    assert lines[2].split()[:2] == ["1", "exact"] and lines[3].split()[:2] == ["0.973", "near"]
    assert lines[-1] == (
        "3 of 3 candidates reach Jaccard 0.8, the first 2 are shown; "
        "a document of just that similarity is found with chance 98.2%"
    )


def test_an_existing_file_is_read_and_its_last_line_end_does_not_count(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "a text"
    for ending in ("", "\n", "\r\n"):
        file.write_bytes((TEXT + ending).encode())
        assert found(shell, str(file))[0] == ("TEXT", 1.0)
        assert shell.json("similar", str(file))[0]["match"] == "exact"


def test_a_dash_is_standard_input(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO((LONGER + "\n").encode())))
    assert found(shell, "-")[0] == ("LONGER", 1.0)


def test_a_text_without_words_is_found_only_as_itself(shell: Shell) -> None:
    assert found(shell, MARKS) == [("MARKS", 1.0)]
    assert found(shell, "... !") == []


def test_candidates_beyond_the_most_that_are_read_are_told(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "MOST_VERIFIED", 2)
    _, out, _ = shell("similar", TEXT)
    assert "2 of 2 candidates (of 3, those that share the most bands)" in out


@pytest.mark.parametrize(
    ("argument", "told"),
    [
        ("", "text is empty"),
        (" \n", "text is empty"),
        ("missing.txt", "no such file"),
        ("no/such/file", "no such file"),
    ],
)
def test_what_is_no_text_is_one_sentence_and_exit_code_2(shell: Shell, argument: str, told: str) -> None:
    code, out, err = shell("similar", argument)
    assert (code, out) == (2, "") and told in one_sentence(err)


def test_files_that_hold_no_text_are_refused_with_the_place(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "file"
    for raw, told in ((b"abc\xff\xfe", "byte 3"), (b"ab\0c", "NUL (character 2)"), (b"", "empty")):
        file.write_bytes(raw)
        code, out, err = shell("similar", str(file))
        assert (code, out) == (2, "") and told in one_sentence(err)
    code, _, err = shell("similar", str(tmp_path))
    assert code == 2 and "is a folder" in one_sentence(err)


def test_a_file_longer_than_any_document_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "long.txt"
    file.write_text("four")
    assert command.read_argument(str(file), 4) == "four"
    with pytest.raises(Exception, match="more than 3 bytes"):
        command.read_argument(str(file), 3)


def test_a_long_text_is_no_name_of_a_file() -> None:
    text = "word " * 100_000
    assert command.read_argument(text, 10) == text


def test_a_store_without_bands_of_these_settings_is_refused(home: Path, shell: Shell) -> None:
    path = home / "winnow.toml"
    before = path.read_text()
    try:
        save_config(Config.model_validate({"duplicates": {"threshold": 0.7}}), path)
        code, out, err = shell("similar", TEXT)
    finally:
        path.write_text(before)
    assert (code, out) == (2, "") and "no bands of the present settings" in one_sentence(err)


def test_no_store_is_one_sentence_and_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = Shell(tmp_path, capsys)("similar", TEXT)
    assert (code, out) == (2, "") and "does not exist" in one_sentence(err)


def test_an_answer_brings_in_no_heavy_library(home: Path) -> None:
    heavy = ("torch", "numba", "faiss", "transformers", "datasketch", "dagster", "sklearn", "matplotlib", "polars")
    code = (
        "import sys; from winnow.cli import main\n"
        f"code = main(['--home', {str(home)!r}, 'similar', {TEXT!r}, '--format', 'json'])\n"
        f"print([name for name in {heavy!r} if name in sys.modules], code, file=sys.stderr)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stderr.strip() == "[] 0" and '"exact"' in ended.stdout


# -- duplicates plan | sweep ------------------------------------------------------------------------------------------


def test_a_plan_shows_the_stores_documents_and_every_threshold_asked_for(shell: Shell) -> None:
    rows = shell.json("duplicates", "plan", "--threshold", "0.6", "--threshold", "0.9")
    assert [(row["threshold"], row["configured"]) for row in rows] == [(0.6, False), (0.8, True), (0.9, False)]
    assert (rows[1]["bands"], rows[1]["rows"]) == (17, 7) and rows[0]["found at 0.6"] == rows[0]["recall"] >= 0.98
    code, out, _ = shell("duplicates", "plan")
    assert code == 0 and out.splitlines()[-1].startswith("35 documents of ")


def test_a_plan_needs_no_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shell = Shell(tmp_path, capsys)
    small, large = (shell.json("duplicates", "plan", "--documents", count) for count in ("1_000", "1,000,000"))
    assert all(1_000 * few["disk"] <= many["disk"] for few, many in zip(small, large, strict=True))
    code, _, err = shell("duplicates", "plan")
    assert code == 2 and "does not exist" in one_sentence(err)


def test_a_sweep_shows_what_higher_thresholds_would_remove(shell: Shell) -> None:
    rows = shell.json("duplicates", "sweep")
    assert [(row["threshold"], row["removed"]) for row in rows] == [(0.8, 2), (0.85, 2), (0.9, 1), (0.95, 1)]
    code, _, err = shell("duplicates", "sweep", "--threshold", "0.7")
    assert code == 2 and "never looked for" in one_sentence(err)


@pytest.mark.parametrize(
    "arguments",
    [
        ("similar", "x", "--threshold", "0"), ("similar", "x", "--threshold", "two"), ("similar", "x", "--limit", "0"),
        ("duplicates", "plan", "--threshold", "1"), ("duplicates", "plan", "--documents", "few"), ("duplicates",),
    ],
)  # fmt: skip
def test_options_out_of_range_end_with_usage_and_code_2(shell: Shell, arguments: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as ended:
        shell(*arguments)
    assert ended.value.code == 2
