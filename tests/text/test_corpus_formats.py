"""Which files are corpus files, and how they are found."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from winnow.errors import UserError
from winnow.text import discover, format_of


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.jsonl", "jsonl"),
        ("a.ndjson", "jsonl"),
        ("a.json", "jsonl"),
        ("a.jsonl.gz", "jsonl.gz"),
        ("c4-train.00000-of-01024.json.gz", "jsonl.gz"),
        ("a.JSONL.ZST", "jsonl.zst"),
        ("a.jsonl.zstd", "jsonl.zst"),
        ("part-0.snappy.parquet", "parquet"),
        ("a.txt", "text"),
        ("README.md", "markdown"),
        ("a.markdown", "markdown"),
        ("a.csv", "csv"),
        ("a.gz", None),
        ("a.txt.gz", "text.gz"),
        ("a.jsonl.tmp", None),
        ("jsonl", None),
    ],
)
def test_the_suffix_says_the_format(name: str, expected: str | None) -> None:
    assert format_of(Path("folder.parquet") / name) == expected


def _touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")


def _found(root: Path, *globs: str) -> list[str]:
    return [path.relative_to(root).as_posix() for path in discover(root, globs)]


def test_files_are_found_sorted_and_once_whatever_the_globs(tmp_path: Path) -> None:
    _touch(tmp_path, "b.jsonl", "a/z.parquet", "a/b/c.txt", "a/b/x.log", "a.md")
    everything = ["a/b/c.txt", "a/z.parquet", "a.md", "b.jsonl"]
    assert _found(tmp_path, "**/*") == everything
    assert _found(tmp_path, "**/*.jsonl", "**/*", "*.jsonl") == everything
    assert _found(tmp_path, "*") == ["a.md", "b.jsonl"]
    assert _found(tmp_path, "a/**") == ["a/b/c.txt", "a/z.parquet"]
    assert _found(tmp_path, "**/b/*.txt") == ["a/b/c.txt"]
    assert _found(tmp_path) == []


def test_hidden_marker_and_unfinished_files_and_folders_are_ignored(tmp_path: Path) -> None:
    _touch(tmp_path, ".hidden.jsonl", "_SUCCESS", "_meta.json", "a.jsonl.tmp", "b.jsonl.part", "c.jsonl.partial")
    _touch(tmp_path, ".git/a.jsonl", "_temporary/a.jsonl", "x.tmp/a.jsonl", "kept.jsonl")
    assert _found(tmp_path, "**/*") == ["kept.jsonl"]


def test_link_loops_end_and_a_linked_folder_is_listed_once(tmp_path: Path) -> None:
    root = tmp_path / "root"
    outside = tmp_path / "outside"
    _touch(root, "data/a.jsonl")
    _touch(outside, "b.jsonl")
    (root / "data" / "up").symlink_to(root)
    (root / "also_data").symlink_to(root / "data")
    (root / "far").symlink_to(outside)
    (root / "further").symlink_to(outside)
    (root / "self.jsonl").symlink_to(root / "self.jsonl")
    (root / "broken.jsonl").symlink_to(root / "nowhere")
    assert _found(root, "**/*") == ["broken.jsonl", "data/a.jsonl", "far/b.jsonl", "self.jsonl"]


def test_a_folder_or_pipe_named_like_a_file_is_not_a_file(tmp_path: Path) -> None:
    _touch(tmp_path, "table.parquet/part-0.parquet")
    os.mkfifo(tmp_path / "pipe.jsonl")
    assert _found(tmp_path, "**/*") == ["table.parquet/part-0.parquet"]


def test_a_root_that_cannot_be_listed_is_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="missing cannot be listed"):
        discover(tmp_path / "missing", ["**/*"])
    (tmp_path / "nowhere").symlink_to(tmp_path / "missing")
    with pytest.raises(UserError, match="name an existing, readable folder"):
        discover(tmp_path / "nowhere", ["**/*"])


def test_a_root_that_is_a_file_is_found_whatever_the_globs(tmp_path: Path) -> None:
    _touch(tmp_path, "a.jsonl", "b.jsonl")
    assert discover(tmp_path / "a.jsonl", ["*.parquet"]) == [tmp_path / "a.jsonl"]


@pytest.mark.parametrize("glob", ["/etc/*", "../*", "a/../*", "", "a//b"])
def test_a_glob_that_leaves_the_root_is_the_users_mistake(tmp_path: Path, glob: str) -> None:
    with pytest.raises(UserError, match="relative to the source's folder"):
        discover(tmp_path, [glob])


def test_a_file_name_that_is_no_utf8_is_named(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/a\xff.jsonl")).write_text("{}")
    with pytest.raises(UserError, match="not UTF-8; rename it"):
        discover(tmp_path, ["**/*"])
