"""Web pages to text: what each extractor keeps, and pages made to break them."""

from __future__ import annotations

import builtins
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from winnow.errors import UserError
from winnow.text import Limits, ShardReader
from winnow.text.formats import Reading
from winnow.text.html import EXTRACTORS, UnreadablePageError, check_shape, extractor
from winnow.text.visible import tokens, visible_text

ARTICLE = (
    "<!doctype html><html><head><title>The title</title><script>var a = '<p>no</p>';</script></head><body>"
    "<nav><ul><li><a href='/'>Home page</a></li><li><a href='/b'>Other pages</a></li></ul></nav><article>"
    "<h1>A heading of the article</h1>"
    + "".join(
        f"<p>Paragraph {i} has a sentence, and another one of some length follows it here.</p>" for i in range(12)
    )
    + "</article><footer>Copyright notice of the footer</footer></body></html>"
)


@pytest.fixture(params=sorted(EXTRACTORS))
def name(request: pytest.FixtureRequest) -> str:
    try:
        extractor(request.param)
    except UserError as error:
        pytest.skip(str(error))
    return str(request.param)


def test_every_extractor_gives_the_article_and_says_its_version(name: str) -> None:
    text = extractor(name).extract(ARTICLE)
    assert all(f"Paragraph {i} has a sentence" in text for i in range(12)) and "A heading of the article" in text
    assert "var a" not in text and extractor(name).name.split()[0] == name
    assert any(part[0].isdigit() for part in extractor(name).name.split()[1:])
    assert ("Copyright notice" in text) == (name == "text")
    assert extractor(name).extract(ARTICLE) == text


@pytest.mark.parametrize("page", ["", " ", "<html></html>", "<script>only</script>", "\0", "<!--"])
def test_a_page_without_text_gives_none(name: str, page: str) -> None:
    assert not extractor(name).extract(page).strip("\0\ufffd \n")


PIECES = st.sampled_from(
    [
        *"<>/='\"! a&;-",
        "<div>",
        "</div>",
        "<p>",
        "<!--",
        "-->",
        "<script>",
        "</script",
        "<table>",
        "<td>",
        "é",
        "&amp;",
        "<svg>",
        "\0",
    ]
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(page=st.lists(PIECES, max_size=60).map("".join))
def test_no_page_raises_anything_but_its_own_error(name: str, page: str) -> None:
    try:
        extractor(name).extract(page).encode()
    except UnreadablePageError as error:
        assert str(error)


BOMBS = {
    "nested": "<div>" * 100_000 + "text" + "</div>" * 100_000,
    "unclosed": "<b><p>" * 100_000 + "text",
    "tables": "<table><tr><td>" * 100_000 + "text",
    "attributes": "<div " + " ".join(f"a{i}=1" for i in range(100_000)) + ">text",
    "less": "<" * 300_000,
    "comments": "<!--" * 100_000,
    "tags": "<a " * 100_000,
    "quotes": '<a b="' * 100_000,
    "entities": "&amp" * 100_000,
    "scripts": "<script>" * 100_000,
}


def test_pages_made_to_break_parsers_neither_crash_nor_hang_them(name: str, tmp_path: Path) -> None:
    """In a process of its own: an overflowing stack would end this one."""
    path = tmp_path / "bombs.json"
    path.write_text(json.dumps(BOMBS))
    code = f"""
import json, sys
from winnow.text.html import UnreadablePageError, extractor
for bomb, page in json.load(open({str(path)!r})).items():
    try:
        print(bomb, len(extractor({name!r}).extract(page)))
    except UnreadablePageError as error:
        print(bomb, error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    said = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert said.keys() == BOMBS.keys()
    if name != "text":
        assert all("1,000 levels deep" in said[bomb] for bomb in ("nested", "unclosed", "tables"))
        assert "10,000 attributes" in said["attributes"]


def test_deep_and_wide_pages_are_refused_and_ordinary_ones_are_not() -> None:
    check_shape("<div>" * 1000 + "</div>" * 1000)
    check_shape("<p>one<br><img src=a><li>x" * 5000)
    check_shape("<div>x</div>" * 50_000)
    check_shape("<script>" + "if (a<b) x();" * 5000 + "</script>")
    check_shape(f"<div data-json='{'word = ' * 50_000}'>")
    for page in ("<div>" * 1001, "<span><i>" * 600, f"<a {'b ' * 10_001}>"):
        with pytest.raises(UnreadablePageError):
            check_shape(page)


def test_a_page_that_cannot_be_read_is_quarantined_and_the_next_one_is_a_document(tmp_path: Path) -> None:
    path = tmp_path / "a.warc"
    pages = [b"<div>" * 100_000, ARTICLE.encode()]
    path.write_bytes(
        b"".join(
            b"WARC/1.0\r\nWARC-Type: resource\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n%s\r\n\r\n"
            % (len(page), page)
            for page in pages
        )
    )
    reader = ShardReader(path, reading=Reading(limits=Limits(max_bad_fraction=1)))
    (batch,) = reader
    assert [(row.row, row.reason) for row in batch.quarantined] == [(0, "broken_payload")]
    assert batch.documents["row"].to_pylist() == [1] and "Paragraph 11" in batch.documents["text"][0].as_py()


def test_a_missing_package_is_the_users_to_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    importing = builtins.__import__

    def without(module: str, *args: Any, **kwargs: Any) -> Any:
        if module.split(".")[0] in ("resiliparse", "trafilatura"):
            raise ImportError(f"No module named '{module}'")
        return importing(module, *args, **kwargs)

    extractor.cache_clear()
    monkeypatch.setattr(builtins, "__import__", without)
    for one in ("resiliparse", "trafilatura"):
        with pytest.raises(UserError, match=r"pip install 'winnow\[html\]', or set html = \"text\""):
            extractor(one)
    assert extractor("text").extract("<p>a") == "a"
    monkeypatch.undo()
    extractor.cache_clear()
    with pytest.raises(UserError, match="no HTML extractor 'x'; there is: resiliparse, trafilatura, text"):
        extractor("x")


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("<p>One\n  two <b>three</b>four<p>five", "One two threefour\nfive"),
        ("a<br>b<hr>c<div>d</div>e", "a\nb\nc\nd\ne"),
        ("<table><tr><td>1<td>2<tr><th>3</table>", "1 2\n3"),
        ("<pre>  x\n\n   y  \n</pre>z", "  x\n\n   y\nz"),
        ("&lt;a&gt; &eacute;&#233;&#x2014; &unknown; &", "<a> éé— &unknown; &"),
        ("1 < 2 <3 a<!b>c<?d>e</>f", "1 < 2 <3 acef"),
        ("a<!-- > <p> -->b<!---->c", "abc"),
        ("a<script>x</scriptx></script >b<STYLE>c</Style>d", "abd"),
        ("a<svg><svg>b</svg>c</svg>d<select><option>e</select>f", "adf"),
        ('<a href=\'x>y\' b="</p>" c=5">link</a>', "link"),
        ("<title>t</title><textarea><p>a</textarea>b<iframe>c", "b"),
        ("no markup\u00a0at all", "no markup\u00a0at all"),
        ("a<p", "a"),
        ("<TEMPLATE>x</TEMPLATE>y</noscript>", "y"),
    ],
)
def test_the_visible_text_is_what_lies_between_the_tags(page: str, text: str) -> None:
    assert visible_text(page) == text


def test_reading_tags_takes_time_linear_in_the_page() -> None:
    def seconds(page: str) -> float:
        started = time.process_time()
        for _ in tokens(page):
            pass
        return time.process_time() - started

    def slowest() -> Iterator[str]:
        for piece in ("<", "<!--", "<a ", "<a b='", "<script>", "</", "<?", "<a b=\"'", "<a =", "&"):
            if seconds(piece * 200_000) > 5:
                yield piece

    assert not list(slowest())
