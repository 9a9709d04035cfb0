"""The demo corpus and its reference: deterministic, free of overlap, and made of files alone."""

from __future__ import annotations

import io
import json
import re
import sys
from collections import Counter
from pathlib import Path

import pytest
import zstandard

from winnow.demo import gather_corpus
from winnow.demo.cutting import LONGEST, definitions, docstrings, paragraph_groups, parse, sections
from winnow.demo.environment import Environment, list_files
from winnow.demo.reference import build_reference, cut_topic

LICENCE = "Permission is hereby granted, free of charge, to any person obtaining a copy.\n\n" * 3
MODULE = '''"""A module that {word} its arguments and returns nothing of interest."""

import os


@decorated
def first(argument):
    """Return the first {word} argument as it was given to the function."""
    return argument


class Second:
    """A class of things that are {word}."""

    @property
    def value(self):
        """The value of the thing, read from the file {word}."""

    @value.setter
    def value(self, new):
        """The value of the thing, written to the file {word}."""
'''


def read(path: Path) -> list[dict[str, str]]:
    with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(path.read_bytes())) as stream:
        return [json.loads(line) for line in io.TextIOWrapper(stream, encoding="utf-8")]


def read_inbox(inbox: Path) -> list[dict[str, str]]:
    return [row for path in sorted(inbox.glob("*/part-*.jsonl.zst")) for row in read(path)]


def shingles(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[k : k + 8]) for k in range(len(words) - 7)}


def make_environment(root: Path) -> Environment:
    """A small installation: what must be gathered and what must not."""
    topic = build_reference().items[0]["text"]
    files = {
        "lib/os_like.py": MODULE.format(word="opens"),
        "lib/broken.py": "def broken(:\n",
        "lib/raises.py": 'raise SystemExit("imported")\n\n\ndef never():\n    """A function nobody can import."""\n',
        "lib/surrogate.py": 'def odd():\n    """An escape that no UTF-8 can hold: \\ud800."""\n',
        "lib/quoting.py": f"def quoting():\n    {topic!r}\n",
        "lib/pydoc_data/topics.py": 'topics = {"a": "never to be gathered, being the reference itself"}\n',
        "lib/site-packages/hidden.py": '"""Listed as a package, not as standard library."""\n',
        "lib/__pycache__/os_like.cpython-311.pyc": "compiled text that must not be read",
        "packages/alpha/__init__.py": MODULE.format(word="loads"),
        "packages/alpha/_vendor/beta/core.py": MODULE.format(word="saves"),
        "packages/beta/core.py": MODULE.format(word="saves"),
        "packages/alpha/README.md": "# Alpha\n\nAlpha does one thing.\n\n## Changelog\n\n1.0: everything is new.\n",
        "packages/alpha/where.txt": f"This file was installed into {root}/env and says so.\n",
        "packages/alpha/latin.txt": "caf\udce9 is not UTF-8 in this file\n",
        "packages/alpha-1.0.dist-info/METADATA": "Name: alpha\n\n# alpha\n\nThe description of alpha, one paragraph.\n",
        "packages/alpha-1.0.dist-info/RECORD": "alpha/__init__.py,sha256=abcdefgh,100\n",
        "packages/alpha-1.0.dist-info/direct_url.json": '{"url": "file:///somewhere/else/entirely"}',
        "packages/alpha-1.0.dist-info/licenses/LICENSE": LICENCE,
        "packages/beta-2.0.dist-info/LICENSE": LICENCE,
        "packages/beta/CHANGES.rst": "Changes\n=======\n\n2.0: beta was rewritten from the ground up.\n",
        "packages/winnow/config.py": '"""The project itself is no part of the demo."""\n',
        "packages/__editable___winnow_finder.py": '"""A file that the installer wrote."""\n',
    }
    for name, text in files.items():
        path = root / "env" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", errors="surrogateescape")
    return Environment(root / "env" / "lib", (root / "env" / "packages",), str(root / "env"))


@pytest.fixture(scope="module")
def stdlib_only(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, object]:
    folder = tmp_path_factory.mktemp("stdlib")
    environment = Environment(Environment.current().stdlib, (), "")
    corpus = gather_corpus(folder / "inbox", folder / "reference.jsonl.zst", documents=300, environment=environment)
    return folder / "inbox", folder / "reference.jsonl.zst", corpus


def test_the_standard_library_alone_fills_a_corpus(stdlib_only: tuple[Path, Path, object]) -> None:
    rows = read_inbox(stdlib_only[0])
    assert len(rows) == 300
    assert {row["package"] for row in rows} == {"stdlib"}
    assert len({row["id"] for row in rows}) == 300
    assert all(20 <= len(row["text"]) <= LONGEST for row in rows)
    assert all(list(row) == ["id", "text", "source", "path", "package", "kind"] for row in rows)
    assert {"docstrings", "code", "docs"} <= {row["source"] for row in rows}


def test_no_document_shares_eight_words_with_the_reference(stdlib_only: tuple[Path, Path, object]) -> None:
    inbox, reference, _ = stdlib_only
    seen = set().union(*(shingles(item["text"]) for item in read(reference)))
    assert len(seen) > 10_000
    assert not [row["id"] for row in read_inbox(inbox) if shingles(row["text"]) & seen]


def test_the_same_packages_give_the_same_bytes_wherever_they_lie(tmp_path: Path) -> None:
    digests = []
    for name in ("one", "another/deeper"):
        folder = tmp_path / name
        inbox, reference = folder / "inbox", folder / "reference.jsonl.zst"
        corpus = gather_corpus(inbox, reference, documents=100, environment=make_environment(folder))
        files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(inbox.rglob("*.zst"))}
        digests.append((corpus, files, reference.read_bytes()))
    assert digests[0] == digests[1]
    assert not any(str(tmp_path).encode() in json.dumps(row).encode() for row in read_inbox(tmp_path / "one" / "inbox"))


def test_every_kind_of_text_is_gathered_and_what_an_installer_writes_is_not(tmp_path: Path) -> None:
    corpus = gather_corpus(tmp_path / "in", tmp_path / "ref.zst", documents=100, environment=make_environment(tmp_path))
    rows = read_inbox(tmp_path / "in")
    by_source = {source: [row for row in rows if row["source"] == source] for source in corpus.documents}
    assert {row["text"] for row in by_source["licences"]} == {LICENCE.strip()}
    assert len(by_source["licences"]) == 2  # an exact duplicate stays
    assert {row["package"] for row in by_source["changelogs"]} == {"alpha", "beta"}
    assert [row["text"] for row in by_source["descriptions"]] == ["# alpha\n\nThe description of alpha, one paragraph."]
    copies = Counter(row["text"] for row in by_source["docstrings"])
    assert copies["A class of things that are saves."] == 2  # a vendored copy stays beside its original
    assert "A function nobody can import." in copies
    assert "raises" not in sys.modules
    text = " ".join(row["text"] for row in rows)
    for absent in (
        "sha256",
        "somewhere/else",
        "says so",
        "project itself",
        "installer wrote",
        "reference itself",
        "caf",
    ):
        assert absent not in text
    assert "An escape" not in " ".join(copies)
    assert "compiled text" not in text
    assert corpus.removed["docstrings"] == 1  # the docstring that quotes the reference
    assert {row["id"] for row in by_source["docstrings"] if "value" in row["id"] and "os_like" in row["id"]} == {
        "stdlib/os_like.py#Second.value",
        "stdlib/os_like.py#Second.value~2",
    }


def test_a_second_run_touches_no_file_and_a_smaller_one_leaves_no_stale_part(tmp_path: Path) -> None:
    environment = Environment(Environment.current().stdlib, (), "")
    inbox, reference = tmp_path / "inbox", tmp_path / "reference.jsonl.zst"
    first = gather_corpus(inbox, reference, documents=60, environment=environment)
    before = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in tmp_path.rglob("*.zst")}
    assert gather_corpus(inbox, reference, documents=60, environment=environment) == first
    assert {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in tmp_path.rglob("*.zst")} == before
    stale = inbox / "code" / "part-00007.jsonl.zst"
    stale.write_bytes(b"left by a larger corpus")
    other = gather_corpus(inbox, reference, documents=60, seed=1, environment=environment)
    assert not stale.exists()
    assert other.digest != first.digest
    assert sum(other.documents.values()) == len(read_inbox(inbox)) == 60


def test_the_parts_of_the_reference_share_no_eight_words_and_no_topic() -> None:
    reference = build_reference()
    parts: dict[str, set[tuple[str, ...]]] = {"selecting": set(), "judging": set()}
    topics: dict[str, set[str]] = {"selecting": set(), "judging": set()}
    for item in reference.items:
        parts[item["part"]] |= shingles(item["text"])
        topics[item["part"]].add(item["topic"])
    assert not parts["selecting"] & parts["judging"]
    assert not topics["selecting"] & topics["judging"]
    assert min(reference.per_part.values()) >= 100
    assert len(reference.texts) == len(set(reference.texts)) == len({item["id"] for item in reference.items})
    assert max(len(text.split()) for text in reference.texts) <= 250
    long_enough = sum(len(text.split()) >= 80 for text in reference.texts)
    assert long_enough / len(reference.texts) > 0.85
    assert build_reference(seed=1).per_part != reference.per_part
    assert build_reference() == reference


def test_a_topic_is_cut_without_losing_a_word() -> None:
    from pydoc_data.topics import topics

    for text in [*topics.values(), "", "one word", "word " * 40 + "\n\n" + "line of a table\n" * 300]:
        assert " ".join(cut_topic(text)).split() == text.split()


def test_cutting_keeps_every_word_and_the_limit() -> None:
    text = "# One\n\nfirst paragraph\n\nTwo\n===\n\nsecond\nparagraph\n\n" + "long " * 4000 + "\n\nlast"
    found = sections(text, target=100)
    assert "".join("".join(part for _, part in found).split()) == "".join(text.split())
    assert [heading for heading, _ in found][:2] == ["One", "Two"]
    assert max(len(part) for _, part in found) <= LONGEST
    assert paragraph_groups("a\n\nb\n\n\n\nc", target=1) == ["a", "b", "c"]
    assert paragraph_groups("a\n\nb\n \nc", target=100) == ["a\n\nb\n\nc"]


def test_code_is_cut_where_definitions_start() -> None:
    text = MODULE.format(word="cuts")
    tree = parse(text)
    assert tree is not None
    pieces = definitions(text, tree, target=10)
    assert "\n".join(code for _, code in pieces).split() == text.split()
    assert any(code.startswith("@decorated\ndef first") for _, code in pieces)
    assert parse("def broken(:") is None
    assert Counter(kind for _, kind, _ in docstrings(tree)) == {"module": 1, "class": 1, "function": 3}


def test_files_are_listed_by_paths_without_the_place(tmp_path: Path) -> None:
    paths = [file.path for file in list_files(make_environment(tmp_path))]
    assert paths == sorted(set(paths))
    assert all(path.startswith(("stdlib/", "site-packages/")) for path in paths)
    assert "stdlib/pydoc_data/topics.py" not in paths
    assert not any("winnow" in path or "__pycache__" in path for path in paths)


@pytest.mark.slow
def test_this_environment_gives_the_demo_its_size(tmp_path: Path) -> None:
    corpus = gather_corpus(tmp_path / "inbox", tmp_path / "reference.jsonl.zst")
    assert 5_500 <= sum(corpus.documents.values()) <= 6_500
    assert corpus.median_characters <= 520
    assert set(corpus.documents) == {"changelogs", "code", "descriptions", "docs", "docstrings", "licences"}
    assert min(corpus.documents.values()) >= 20
    parts = [len(read(path)) for path in (tmp_path / "inbox").rglob("*.zst")]
    assert max(parts) <= 1_000
