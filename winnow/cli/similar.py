"""``winnow similar``: near duplicates of any text in the published store."""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from winnow.errors import UserError

if TYPE_CHECKING:
    from winnow.stages.similar import Similar, SimilarDocument

COMMANDS = ("similar",)


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    similar = commands.add_parser(
        "similar",
        help="near duplicates of a text in the store",
        description="Find documents of the published store that are near duplicates of a text, by exact Jaccard "
        "similarity of their shingles. An argument that names an existing file is that file; any other is the text "
        "itself.",
    )
    similar.add_argument("text", metavar="FILE|TEXT", help="a UTF-8 file, the text in quotes, or - for standard input")
    similar.add_argument(
        "--threshold", type=_threshold, metavar="T", help="least Jaccard similarity (default: duplicates.threshold)"
    )
    similar.add_argument("--limit", type=count, metavar="N", default=20, help="most documents to show (default: 20)")
    similar.add_argument("--format", choices=("table", "json"), default="table")


def _threshold(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no similarity; give a number above 0, at most 1")
    return value


def count(text: str) -> int:
    """Parse a number of documents."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no number of documents; give 1 or more")
    return int(text)


def similar(options: argparse.Namespace) -> int:
    """Print the near duplicates of a text."""
    from winnow.config import load_config
    from winnow.home import Home
    from winnow.stages.similar import find_similar
    from winnow.store.published import open_published

    home = Home.from_environment(options.home)
    config = load_config(home.config)
    text = read_argument(options.text, config.corpus.max_record_bytes)
    with open_published(home, config.store) as connection:
        found = find_similar(connection, config.duplicates, text, options.threshold, options.limit)
    _print(found, options.format)
    return 0


def read_argument(argument: str, most_bytes: int) -> str:
    """Return the text that an argument means: ``-`` standard input, an existing file its content, else itself.

    Raises :class:`UserError` for a folder, for what looks like a path to nothing, for a file of more than
    ``most_bytes`` bytes, and for bytes that are no UTF-8 text.
    """
    if argument == "-":
        return _decoded(sys.stdin.buffer.read(most_bytes + 1), "standard input", most_bytes)
    if not argument.strip():  # the path of nothing is the present folder
        return argument
    path = Path(argument).expanduser()
    try:
        is_file, is_folder = path.is_file(), path.is_dir()
    except (OSError, ValueError):  # too long for a name, or with characters that none has
        is_file = is_folder = False
    if is_folder:
        raise UserError(f"{argument} is a folder; name one file of it")
    if is_file:
        try:
            with path.open("rb") as file:
                return _decoded(file.read(most_bytes + 1), argument, most_bytes)
        except OSError as error:
            raise UserError(f"{argument}: cannot be read ({error.strerror})") from error
    if re.fullmatch(r"\S*/\S*|\S+\.\w{1,8}", argument):
        raise UserError(
            f"{argument}: no such file; a text that looks like a path goes to standard input (winnow similar -)"
        )
    return argument


def _decoded(raw: bytes, name: str, most_bytes: int) -> str:
    if len(raw) > most_bytes:
        raise UserError(f"{name}: more than {most_bytes:,} bytes (corpus.max_record_bytes): no document is that long")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{name}: no UTF-8 text (byte {error.start}); convert or decompress it first") from error
    if "\0" in text:
        raise UserError(f"{name}: no text, it holds NUL (character {text.index(chr(0))}); convert it first")
    return text


def _print(found: Similar, form: str) -> None:
    from winnow.cli.show import plain, show_records

    if form == "json":
        print(json.dumps([plain(_record(one)) for one in found.documents], indent=2, ensure_ascii=False))
        return
    if found.documents:
        show_records([_row(one) for one in found.documents], "table")
        print()
    shown = f", the first {len(found.documents)} are shown" if len(found.documents) < found.matches else ""
    of = f"{found.verified:,} candidates"
    if found.verified < found.candidates:
        of += f" (of {found.candidates:,}, those that share the most bands)"
    print(
        f"{found.matches} of {of} reach Jaccard {found.threshold:g}{shown}; "
        f"a document of just that similarity is found with chance {found.recall:.1%}"
    )


def _record(one: SimilarDocument) -> dict[str, Any]:
    return {
        "doc_id": one.doc_id,
        "jaccard": one.jaccard,
        "match": "exact" if one.exact else "near",
        "kept": one.kept,
        "keeper_id": one.keeper_id,
        "source": one.source,
        "original_id": one.original_id,
        "excerpt": one.excerpt,
        "occurrences": [dict(place) for place in one.occurrences],
    }


def _row(one: SimilarDocument) -> dict[str, Any]:
    first = one.occurrences[0] if one.occurrences else {"shard": None, "row": None, "url": None}
    return {
        "jaccard": round(one.jaccard, 4),
        "match": "exact" if one.exact else "near",
        "kept": "yes" if one.kept else "no",
        "doc_id": one.doc_id,
        "source": one.source,
        "original_id": one.original_id,
        "place": f"{first['shard']} row {first['row']}",
        "url": first["url"],
        "copies": len(one.occurrences),
    }
