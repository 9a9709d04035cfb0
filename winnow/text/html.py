"""Web pages to their text: the extractors by name. None runs or fetches anything that a page names."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from functools import cache
from importlib.metadata import version

from winnow.errors import UserError
from winnow.text.visible import tokens, visible_text

DEEPEST_ELEMENTS = 1000
MOST_ATTRIBUTES = 10_000

# Elements without content, and those whose end tag may be missing.
_UNNESTED = set(
    """area base br col embed hr img input link meta param source track wbr p li dt dd option optgroup tr td th thead
    tbody tfoot colgroup caption rp rt html head body""".split()  # noqa: SIM905 - a list of so many reads worse
)
_ATTRIBUTES = re.compile(r"""[a-zA-Z](?:[^>=]++|=\s*+(?:"[^"]*+"|'[^']*+')?+)*+""")
_QUOTED = re.compile(r""""[^"]*+"|'[^']*+'""")


class UnreadablePageError(Exception):
    """A page is beyond what its extractor can handle; the message says in what."""


class Extractor(ABC):
    """A way from HTML to text; ``name`` is recorded with each document, with the version of what does the work."""

    name: str

    @abstractmethod
    def extract(self, html: str) -> str:
        """Return a page's text, empty if there is none. Raises :class:`UnreadablePageError`."""

    def detect(self, data: bytes) -> str | None:
        """Guess the encoding of bytes that do not declare it and are no UTF-8; None for no guess."""
        return None


class Resiliparse(Extractor):
    """Main content by Resiliparse's rules, as DCLM has it: without navigation, headers, footers and the like."""

    def __init__(self) -> None:
        from resiliparse.extract.html2text import extract_plain_text
        from resiliparse.parse.encoding import detect_encoding

        self._extract, self._detect = extract_plain_text, detect_encoding
        self.name = f"resiliparse {version('resiliparse')} main_content"

    def extract(self, html: str) -> str:
        check_shape(html)
        try:
            return self._extract(html, main_content=True).strip()
        except (ValueError, RuntimeError, MemoryError) as error:
            raise UnreadablePageError(f"Resiliparse gave up on it ({error or type(error).__name__})") from error

    def detect(self, data: bytes) -> str | None:
        return self._detect(data)


class Trafilatura(Extractor):
    """Main content by Trafilatura with ``favor_precision``, as FineWeb has it, without comments.

    Its removal of repeated passages stays off: it looks at the pages read before, so it would depend on their order.
    """

    def __init__(self) -> None:
        import trafilatura
        from trafilatura.utils import detect_encoding

        self._extract, self._detect = trafilatura.extract, detect_encoding
        self.name = f"trafilatura {version('trafilatura')} favor_precision"

    def extract(self, html: str) -> str:
        check_shape(html)
        try:
            text = self._extract(html, favor_precision=True, include_comments=False, deduplicate=False)
        except Exception as error:  # it documents none and raises many
            raise UnreadablePageError(f"Trafilatura gave up on it ({type(error).__name__}: {error})") from error
        return text or ""

    def detect(self, data: bytes) -> str | None:
        return next(iter(self._detect(data)), None)


class VisibleText(Extractor):
    """All visible text of a page, navigation included, by :mod:`winnow.text.visible`; needs no other package."""

    name = "text 1"

    def extract(self, html: str) -> str:
        return visible_text(html)


EXTRACTORS: dict[str, type[Extractor]] = {
    "resiliparse": Resiliparse,
    "trafilatura": Trafilatura,
    "text": VisibleText,
}


@cache
def extractor(name: str) -> Extractor:
    """Return the extractor of that name. Raises ``UserError`` where there is none, or its package is missing."""
    if name not in EXTRACTORS:
        raise UserError(f"there is no HTML extractor '{name}'; there is: {', '.join(EXTRACTORS)}")
    try:
        return EXTRACTORS[name]()
    except ImportError as error:
        raise UserError(
            f"the HTML extractor '{name}' cannot be loaded ({str(error).splitlines()[0]}): pip install 'winnow[html]', "
            'or set html = "text" for the source, which needs no other package'
        ) from error


def check_shape(html: str) -> None:
    """Raise :class:`UnreadablePageError` for a page on which extractors take minutes, or worse.

    It is one with elements nested deeper than ``DEEPEST_ELEMENTS`` (browsers flatten them at 512), as far as tags tell,
    or an element with more than ``MOST_ATTRIBUTES``.
    """
    if html.count("<") - html.count("</") > DEEPEST_ELEMENTS and _depth(html) > DEEPEST_ELEMENTS:
        raise UnreadablePageError(f"its elements are nested more than {DEEPEST_ELEMENTS:,} levels deep")
    for piece in html.split("<") if len(html) > 2 * MOST_ATTRIBUTES else ():
        tag = _ATTRIBUTES.match(piece) if len(piece) > 2 * MOST_ATTRIBUTES else None
        if tag and len(_QUOTED.sub("", tag[0]).split()) > MOST_ATTRIBUTES:
            raise UnreadablePageError(f"one of its elements has more than {MOST_ATTRIBUTES:,} attributes")


def _depth(html: str) -> int:
    depth = deepest = 0
    for kind, name in tokens(html):
        if kind != "text" and name not in _UNNESTED:
            depth = depth + 1 if kind == "open" else max(0, depth - 1)
            deepest = max(deepest, depth)
    return deepest
