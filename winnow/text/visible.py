"""The visible text of a web page, by the standard library alone.

One pass over the tags, in time linear in the page whatever it holds (Python's ``html.parser`` takes seconds for some
pages of ten kilobytes). What a style sheet hides is not known to be hidden.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape

_TAG = re.compile(r"""(/?)([a-zA-Z][^\s/>]*+)(?:[^>=]++|=\s*+(?:"[^"]*+"|'[^']*+')?+)*+>""")
_SPACE = re.compile(r"[ \t\n\r\f\v]+")

# Their content is no markup up to their own end tag.
_RAW = {"script", "style", "title", "textarea", "iframe", "noembed", "noframes", "xmp"}
_HIDDEN = {"template", "noscript", "svg", "math", "select", "audio", "video", "canvas", "object", "datalist"}
_BLOCKS = set(
    """address article aside blockquote body br caption center dd details dialog dir div dl dt fieldset figcaption
    figure footer form h1 h2 h3 h4 h5 h6 head header hgroup hr html legend li main menu nav ol p pre section summary
    table tbody tfoot thead tr ul""".split()  # noqa: SIM905 - a list of so many reads worse
)
_CELLS = {"td", "th", "img", "input", "button", "option", "wbr"}


def tokens(html: str) -> Iterator[tuple[str, str]]:
    """Yield a page's markup: ``("text", raw)``, ``("open", name)`` and ``("close", name)``, names in lower case.

    Comments and the content of elements such as ``script`` are left out, and what follows one that is never closed.
    """
    at = 0
    while (start := html.find("<", at)) >= 0:
        if start > at:
            yield "text", html[at:start]
        tag = _TAG.match(html, start + 1)
        following = html[start + 1 : start + 2]
        if tag:
            name = tag[2].lower()
            yield "close" if tag[1] else "open", name
            at = _after_raw(html, tag.end(), name) if name in _RAW and not tag[1] else tag.end()
        elif html.startswith("<!--", start):
            at = _after(html, "-->", start + 2)
        elif following and following in "!?/":
            at = _after(html, ">", start + 1)
        elif following.isascii() and following.isalpha():  # a tag that never ends
            return
        else:
            yield "text", "<"
            at = start + 1
    if at < len(html):
        yield "text", html[at:]


def visible_text(html: str) -> str:
    """Return the text between a page's tags, a line a block; white space is folded except in ``pre``.

    Left out is also what elements such as ``noscript``, ``svg`` and ``select`` hold. Character references are resolved.
    """
    page = _Page()
    act = {"text": page.text, "open": page.open, "close": page.close}
    for kind, value in tokens(html):
        act[kind](value)
    return page.finish()


def _after(html: str, mark: str, start: int) -> int:
    found = html.find(mark, start)
    return found + len(mark) if found >= 0 else len(html)


def _after_raw(html: str, start: int, name: str) -> int:
    found = re.compile(rf"</{name}(?=[\s/>])", re.IGNORECASE).search(html, start)
    return found.start() if found else len(html)


class _Page:
    """Text gathered line by line."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._line: list[str] = []
        self._hidden: list[str] = []
        self._preformatted = 0

    def text(self, raw: str) -> None:
        if raw and not self._hidden:
            text = unescape(raw) if "&" in raw else raw
            if self._preformatted:
                *whole, rest = text.split("\n")
                for line in whole:
                    self._line.append(line)
                    self._end_line(blank=True)
                text = rest
            self._line.append(text)

    def open(self, name: str) -> None:
        if self._hidden:
            if name == self._hidden[0]:
                self._hidden.append(name)
            return
        if name in _HIDDEN:
            self._hidden.append(name)
        elif name in _BLOCKS:
            self._end_line()
        elif name in _CELLS:
            self._line.append(" ")
        self._preformatted += name == "pre"

    def close(self, name: str) -> None:
        if self._hidden:
            if name == self._hidden[0]:
                self._hidden.pop()
            return
        if name in _BLOCKS:
            self._end_line()
        if name == "pre":
            self._preformatted = max(0, self._preformatted - 1)

    def _end_line(self, blank: bool = False) -> None:
        text = "".join(self._line)
        self._line = []
        text = text.rstrip() if self._preformatted else _SPACE.sub(" ", text).strip(" ")
        if text or (blank and self._lines and self._lines[-1]):
            self._lines.append(text)

    def finish(self) -> str:
        self._end_line()
        return "\n".join(self._lines).strip("\n")
