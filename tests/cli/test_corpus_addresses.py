"""``--corpus`` with URIs: what is the folder, what the glob, what the query, and that no secret goes any further."""

from __future__ import annotations

import pytest

from winnow.cli.arguments import _locations
from winnow.config import Location
from winnow.errors import UserError
from winnow.text import locations

ASKED: list[tuple[str, list[str]]] = []


@pytest.fixture(autouse=True)
def _no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    def listed(root: str, include: list[str]) -> list[locations.Listed]:
        ASKED.append((root, include))
        return [locations.Listed("f.jsonl", root, 1, 1)]

    ASKED.clear()
    monkeypatch.setattr(locations, "list_files", listed)


@pytest.mark.parametrize(
    "uri",
    [
        "https://host/dir/f.jsonl?X-Amz-Signature=HUSH",
        "https://host/dir/*.jsonl?X-Amz-Signature=HUSH",
        "HTTP://host/dir/f.jsonl?download=true&sig=HUSH",
        "https://user:HUSH@host/*/f.jsonl",
        "s3://bucket/f.jsonl?X-Amz-Signature=HUSH",
    ],
)
def test_a_secret_is_refused_before_any_server_is_asked_and_is_not_repeated(uri: str) -> None:
    with pytest.raises(UserError, match="holds a user, password, key or signature") as refused:
        _locations([uri])
    assert "HUSH" not in str(refused.value) and not ASKED


@pytest.mark.parametrize(
    ("uri", "root", "include"),
    [
        ("https://host/dir/f.jsonl?download=true", "https://host/dir/f.jsonl?download=true", "**/*"),
        ("https://host/dir/f.jsonl?name=a/*.b", "https://host/dir/f.jsonl?name=a/*.b", "**/*"),
        ("https://host/dir/*.jsonl?download=true", "https://host/dir?download=true", "*.jsonl"),
        ("http://[::1]:8000/f.jsonl", "http://[::1]:8000/f.jsonl", "**/*"),
        ("s3://bucket/dir/f?.jsonl", "s3://bucket/dir", "f?.jsonl"),
        ("memory://dir/*/f.jsonl", "memory://dir", "*/f.jsonl"),
        ("hf://datasets/owner/name", "hf://datasets/owner/name", "**/*"),
    ],
)
def test_globs_are_looked_for_in_the_path_and_a_query_stays_with_the_root(uri: str, root: str, include: str) -> None:
    assert _locations([uri]) == [Location(root=root, include=[include])]
    assert [(root, [include])] == ASKED
