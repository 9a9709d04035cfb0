"""The files of a local root, whatever their names; which URIs are roots, and which are refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from winnow.errors import UserError
from winnow.text.globs import Globs
from winnow.text.locations import (
    discover,
    file_name,
    is_remote,
    list_files,
    open_binary,
    resolve_root,
    root_name,
)

NASTY = [
    'it\'s "quoted".jsonl',
    "with space .jsonl",
    "with\nnewline.jsonl",
    "tab\t;`$(x)`.jsonl",
    "two..dots.jsonl",
    "100%25.jsonl",
    "a#b?c=d&e.jsonl",
    "[x]*.jsonl",
    "-rf.jsonl",
    "é漢字😀.jsonl",
    "x" * 240 + ".jsonl",
]


def _write(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)


@pytest.mark.parametrize("name", NASTY)
def test_a_file_is_found_and_opened_whatever_its_name(tmp_path: Path, name: str) -> None:
    _write(tmp_path, name, f"{name}.folder/{name}")
    found = list_files(tmp_path, ["**/*"])
    assert [listed.relative for listed in found] == sorted([name, f"{name}.folder/{name}"], key=lambda x: x.split("/"))
    for listed in found:
        with open_binary(listed.path) as file:
            assert file.read().decode() == listed.relative
        assert listed.bytes == len(listed.relative.encode())
        assert listed.version == Path(listed.path).stat().st_mtime_ns


def test_only_a_corpus_file_must_have_a_utf8_name(tmp_path: Path) -> None:
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/photo\xff.jpg")
    Path(odd).write_bytes(b"x")
    _write(tmp_path, "a.jsonl")
    assert [path.name for path in discover(tmp_path, ["**/*"])] == ["a.jsonl"]
    assert len(list_files(tmp_path, ["**/*"])) == 2


def test_a_file_that_may_not_be_read_has_no_version(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("the superuser may read everything")
    _write(tmp_path, "a.jsonl")
    (tmp_path / "a.jsonl").chmod(0)
    assert list_files(tmp_path, ["*"])[0].version == 0


def test_a_folder_that_may_not_be_read_is_no_empty_folder(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("the superuser may read everything")
    _write(tmp_path, "closed/a.jsonl")
    (tmp_path / "closed").chmod(0)
    try:
        with pytest.raises(UserError, match="closed cannot be listed"):
            list_files(tmp_path, ["**/*"])
    finally:
        (tmp_path / "closed").chmod(0o700)


def test_markers_are_listed_where_the_globs_lead_and_nowhere_else(tmp_path: Path) -> None:
    _write(tmp_path, "a/state.json", "a/x.arrow", "b/state.json", "a/c/state.json")
    found = list_files(tmp_path, ["a/*.arrow"], markers=("state.json",))
    assert [listed.relative for listed in found] == ["a/state.json", "a/x.arrow"]


def test_a_file_uri_is_a_path(tmp_path: Path) -> None:
    _write(tmp_path, "a b/c.jsonl")
    root = f"file://{tmp_path}/a%20b"
    assert not is_remote(root)
    assert resolve_root(root, Path("/elsewhere")) == tmp_path / "a b"
    assert [listed.path for listed in list_files(root, ["**/*"])] == [str(tmp_path / "a b/c.jsonl")]
    assert open_binary(f"{root}/c.jsonl").read() == b"a b/c.jsonl"
    with pytest.raises(UserError, match="has no host"):
        list_files("file://server/share", ["**/*"])


def test_relative_roots_are_relative_to_the_home_and_uris_are_left_alone(tmp_path: Path) -> None:
    assert resolve_root("inbox", tmp_path) == tmp_path / "inbox"
    assert resolve_root("/data", tmp_path) == Path("/data")
    assert resolve_root("s3://bucket/folder/", tmp_path) == "s3://bucket/folder"
    assert resolve_root("https://host/?page=2", tmp_path) == "https://host/?page=2"


@pytest.mark.parametrize(
    ("root", "name"),
    [
        (Path("/data/wiki"), "wiki"),
        (Path("/"), "corpus"),
        ("s3://bucket/raw/wiki", "wiki"),
        ("s3://bucket", "bucket"),
        ("s3://bucket/a#b?c", "a#b?c"),
        ("hf://datasets/owner/name", "name"),
        ("hf://datasets/owner/name@refs-convert", "name"),
        ("hf://datasets/owner/name@main/data", "data"),
        ("https://host/some%20thing?x=1", "some thing"),
        ("memory://", "memory"),
    ],
)
def test_the_last_folder_names_the_root(root: str | Path, name: str) -> None:
    assert root_name(root) == name


def test_a_url_has_its_files_name_whatever_its_query() -> None:
    assert file_name("https://host/a/b%20c.jsonl.gz?download=true&x=/y.csv") == "b c.jsonl.gz"
    assert file_name("s3://bucket/a/b%20c.jsonl?x") == "b%20c.jsonl?x"
    assert file_name(Path("/a/b.jsonl")) == "b.jsonl"


@pytest.mark.parametrize(
    "uri",
    [
        "s3://AKIDEXAMPLE:hush@bucket/folder",
        "https://user:hush@host/a.jsonl",
        "https://hush@host/a.jsonl",
        "https://host/a.jsonl?X-Amz-Signature=hush",
        "https://host/a.jsonl?x=1&sig=hush",
        "https://host/a.jsonl?access_token=hush",
        "https://host/a.jsonl?API-Key=hush",
        "https://host/a.jsonl?AWSAccessKeyId=hush",
        "hf://user:hush@datasets/owner/name",
    ],
)
def test_a_uri_with_a_secret_is_refused_and_the_secret_is_not_repeated(uri: str, tmp_path: Path) -> None:
    for refused in (lambda: resolve_root(uri, tmp_path), lambda: list_files(uri, ["**/*"])):
        with pytest.raises(UserError, match="in the environment") as raised:
            refused()
        assert "hush" not in str(raised.value) and "AKID" not in str(raised.value)


def test_an_unknown_scheme_is_the_users_mistake() -> None:
    with pytest.raises(UserError, match="there are no locations 'smoke://'"):
        list_files("smoke://signals", ["**/*"])


def test_looking_at_local_files_loads_no_client_of_a_store(tmp_path: Path) -> None:
    _write(tmp_path, "a.jsonl")
    code = (
        "import sys; from winnow.text.locations import list_files, open_binary\n"
        "for one in list_files(sys.argv[1], ['**/*']): open_binary(one.path).read()\n"
        "print([name for name in ('fsspec', 's3fs', 'aiohttp', 'botocore', 'huggingface_hub') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


PARTS = st.lists(st.sampled_from(["a", "b", "ab", "c.jsonl"]), min_size=1, max_size=4).map(tuple)
GLOBS = st.lists(st.sampled_from(["a", "*", "**", "a*", "?", "*.jsonl", "[ab]"]), min_size=1, max_size=4)


@given(PARTS, st.lists(GLOBS, min_size=1, max_size=3))
def test_what_globs_match_lies_in_folders_that_they_lead_to(parts: tuple[str, ...], globs: list[list[str]]) -> None:
    rules = Globs("root", ["/".join(glob) for glob in globs])
    if rules.match(parts):
        assert all(rules.leads_to(parts[:depth]) for depth in range(len(parts)))
        assert any(parts[: len(folder)] == folder for folder in rules.folders())
    folders = rules.folders()
    assert not any(one != other and other[: len(one)] == one for one in folders for other in folders)
