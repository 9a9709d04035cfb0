"""The demo corpus: real text that every machine with Python already has, gathered from the installed environment.

Six sources: documentation files, docstrings, package descriptions, licences, changelogs and code. Nothing is filtered
for quality, and vendored copies and repeated licences stay: they are real duplicates. What overlaps with the reference
is removed. The same packages give the same bytes, wherever the environment lies.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash

from winnow.contamination import build_index, find_overlap
from winnow.demo import cutting
from winnow.demo.environment import Environment, SourceFile, list_files, read_text
from winnow.demo.reference import OVERLAP_WORDS, build_reference
from winnow.identity import digest

logger = logging.getLogger(__name__)

# Share of the corpus each source aims at; what a source lacks, docstrings and code fill.
SHARES = {"changelogs": 0.05, "code": 0.20, "descriptions": 0.083, "docs": 0.217, "docstrings": 0.40, "licences": 0.05}
FILLING = ("docstrings", "code")
SURPLUS = 1.05  # candidates gathered of the filling sources per document aimed at; some overlap with the reference
PROSE, CODE = 450, 550  # characters aimed at when a text is cut
LARGEST_FILE = 40_000  # bytes; a larger Python file costs more time to parse than it adds variety
PER_FILE = {"docs": 60, "docstrings": 10, "code": 5, "licences": 4, "changelogs": 60, "descriptions": 60}
CHARACTERS_PER_FILE = 24_000  # of one source, so that a table of numbers does not outweigh the prose
SHORTEST = 20  # characters
ROWS_PER_PART = 1_000

_LICENCE = re.compile(r"(licen[cs]e|copying|notice|copyright|third.?party)", re.IGNORECASE)
_CHANGELOG = re.compile(r"(.*change|history|news|release)", re.IGNORECASE)
_CHANGELOG_HEADING = re.compile(r"change.?log|changes\b|release notes|what'?s new|history", re.IGNORECASE)
_TEXT_FILE = re.compile(r"\.(rst|md|txt)$|^(readme|authors|todo)[^.]*$", re.IGNORECASE)
_NO_TEXT = re.compile(r"\.(pyi?|pyx|pxd|[ch]|[ch]pp|json|svg|png|html|js|css|cmake|ya?ml|toml)$", re.IGNORECASE)

Row = dict[str, str]


@dataclass(frozen=True)
class DemoCorpus:
    """What was gathered: documents per source, those removed for overlap, and the reference's items per part."""

    documents: dict[str, int]
    removed: dict[str, int]
    reference: dict[str, int]
    reference_repeated: int
    reference_shared: int
    median_characters: float
    medians: dict[str, float]
    digest: str


def gather_corpus(
    inbox: Path, reference: Path, documents: int = 6000, seed: int = 0, environment: Environment | None = None
) -> DemoCorpus:
    """Write about ``documents`` documents under ``inbox`` and the reference to the file ``reference``; say how many.

    ``inbox/<source>/part-NNNNN.jsonl.zst``: rows ``id``, ``text``, ``source``, ``path``, ``package``, ``kind``, at most
    1,000 a part, sorted by id. ``reference``: rows ``id``, ``text``, ``topic``, ``part``. A file whose bytes would not
    change is left untouched; parts of an earlier, larger corpus are removed. ``environment`` defaults to that of the
    running interpreter. No document shares eight words in a row with an item of the reference.
    """
    environment = environment or Environment.current()
    items = build_reference(seed)
    candidates = _candidates(list_files(environment), environment, documents, seed)
    candidates, removed = _without_overlap(candidates, items.texts)
    chosen = _choose(candidates, documents, seed)
    written: dict[str, str] = {}
    for source, rows in sorted(chosen.items()):
        folder = inbox / source
        parts = [rows[start : start + ROWS_PER_PART] for start in range(0, len(rows), ROWS_PER_PART)]
        names = [f"part-{number:05d}.jsonl.zst" for number in range(len(parts))]
        for name, part in zip(names, parts, strict=True):
            written[f"{source}/{name}"] = _write(folder / name, part)
        for stale in folder.glob("part-[0-9][0-9][0-9][0-9][0-9].jsonl.zst"):
            if stale.name not in names:
                stale.unlink()
    written["reference"] = _write(reference, items.items)
    sizes = {source: [len(row["text"]) for row in rows] for source, rows in chosen.items()}
    every = [size for source in sizes.values() for size in source]
    corpus = DemoCorpus(
        documents={source: len(rows) for source, rows in sorted(chosen.items())},
        removed=removed,
        reference=items.per_part,
        reference_repeated=items.repeated,
        reference_shared=items.shared,
        median_characters=float(np.median(every)) if every else 0.0,
        medians={source: float(np.median(size)) for source, size in sorted(sizes.items()) if size},
        digest=digest(written),
    )
    logger.info("%d documents gathered: %s", len(every), corpus.documents)
    return corpus


def _candidates(files: list[SourceFile], environment: Environment, documents: int, seed: int) -> dict[str, list[Row]]:
    """Documents of every source, in the order of their files' keys; parsing stops when code and docstrings suffice."""
    found: dict[str, list[Row]] = {source: [] for source in SHARES}
    python = []
    for file in files:
        if file.name.endswith(".py"):
            python.append(file)
        elif source := _source_of(file):
            text = read_text(file, environment)
            rows = list(_cut_text(file, source, text)) if text else []
            for kind in {row["source"] for row in rows}:
                found[kind] += _few([row for row in rows if row["source"] == kind], PER_FILE[kind], seed)
    others = [source for source in SHARES if source not in FILLING]
    lacking = sum(max(0.0, SHARES[source] * documents - len(found[source])) for source in others)
    wanted = {source: SURPLUS * (SHARES[source] * documents + lacking) for source in FILLING}
    # Files are drawn by folder and name, so that a vendored copy is drawn together with its original.
    previous = ""
    for file in sorted(python, key=lambda file: (_key(file.tail, seed), file.path)):
        if file.tail != previous and all(len(found[source]) >= wanted[source] for source in FILLING):
            break
        previous = file.tail
        text = read_text(file, environment, LARGEST_FILE)
        tree = cutting.parse(text) if text and text.strip() else None
        if text is None or tree is None:
            continue
        comments = [
            _row(file, "docstrings", name or "module", kind, docstring)
            for name, kind, docstring in cutting.docstrings(tree)
            for docstring in cutting.paragraph_groups(docstring, cutting.LONGEST)[:1]
        ]
        code = [_row(file, "code", f"L{line}", "code", piece) for line, piece in cutting.definitions(text, tree, CODE)]
        found["docstrings"] += _few(comments, PER_FILE["docstrings"], seed)
        found["code"] += _few(code, PER_FILE["code"], seed)
    return found


def _source_of(file: SourceFile) -> str | None:
    """The source of a file that is no Python, by its name."""
    installed = ".dist-info/" in file.path
    if installed and file.name == "METADATA":
        return "descriptions"
    if _NO_TEXT.search(file.name):
        return None
    if _LICENCE.match(file.name) or (installed and "/licenses/" in file.path):
        return "licences"
    if not _TEXT_FILE.search(file.name) and not (file.name.isupper() and _CHANGELOG.match(file.name)):
        return None
    return "changelogs" if _CHANGELOG.match(file.name) else "docs"


def _cut_text(file: SourceFile, source: str, text: str) -> Iterator[Row]:
    if source == "licences":
        for number, part in enumerate(cutting.paragraph_groups(text, cutting.LONGEST)):
            yield _row(file, source, str(number), "licence", part)
        return
    if source == "descriptions":
        text = text.partition("\n\n")[2]
    for number, (heading, part) in enumerate(cutting.sections(text, PROSE)):
        history = source == "changelogs" or bool(_CHANGELOG_HEADING.search(heading))
        kind = "description" if source == "descriptions" else "section"
        yield _row(file, "changelogs" if history else source, str(number), "changes" if history else kind, part)


def _row(file: SourceFile, source: str, mark: str, kind: str, text: str) -> Row:
    return {
        "id": f"{file.path}#{mark}",
        "text": text.strip("\n").rstrip(),
        "source": source,
        "path": file.path,
        "package": file.package,
        "kind": kind,
    }


def _few(rows: list[Row], count: int, seed: int) -> list[Row]:
    """At most ``count`` rows of one file, drawn alike in a file and its copies; too short or unencodable ones never."""
    rows = [row for row in rows if len(row["text"]) >= SHORTEST and _encodable(row["text"])]
    marks: dict[str, int] = {}
    for row in rows:  # a property and its setter share a name
        marks[row["id"]] = marks.get(row["id"], 0) + 1
        if marks[row["id"]] > 1:
            row["id"] += f"~{marks[row['id']]}"
    rows = sorted(rows, key=lambda row: (_key(row["text"], seed), row["id"]))[:count]
    ends = itertools.accumulate(len(row["text"]) for row in rows)
    return [row for row, end in zip(rows, ends, strict=True) if end <= CHARACTERS_PER_FILE]


def _encodable(text: str) -> bool:
    """False for a lone surrogate, which an escape in a docstring can make."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _without_overlap(
    candidates: dict[str, list[Row]], reference: list[str]
) -> tuple[dict[str, list[Row]], dict[str, int]]:
    """Drop the documents that share eight words in a row with the reference; count them per source."""
    index = build_index(reference, OVERLAP_WORDS)
    kept, removed = {}, {}
    for source, rows in candidates.items():
        overlap = find_overlap(pa.array([row["text"] for row in rows], pa.large_string()), index)
        long = overlap.filter(pa.array(overlap["longest_match"].to_numpy() >= OVERLAP_WORDS))
        dropped = set(long["position"].to_pylist())
        kept[source] = [row for position, row in enumerate(rows) if position not in dropped]
        removed[source] = len(dropped)
    texts = pa.array([row["text"] for rows in kept.values() for row in rows], pa.large_string())
    left = find_overlap(texts, index)["longest_match"].to_numpy()
    assert not (left >= OVERLAP_WORDS).any(), "a document still overlaps with the reference"
    return kept, removed


def _choose(candidates: dict[str, list[Row]], documents: int, seed: int) -> dict[str, list[Row]]:
    """Fill each source's share, then what is missing: from docstrings and code first. Rows come sorted by id."""
    chosen: dict[str, list[Row]] = {}
    spare: list[Row] = []
    for source, rows in candidates.items():
        # Docstrings and code come file by file, copies beside originals; the others are drawn one by one.
        ordered = rows if source in FILLING else sorted(rows, key=lambda row: (_key(row["id"], seed), row["id"]))
        quota = round(SHARES[source] * documents)
        chosen[source] = ordered[:quota]
        spare += ordered[quota:]
    missing = documents - sum(map(len, chosen.values()))
    spare.sort(key=lambda row: (row["source"] not in FILLING, _key(row["id"], seed), row["id"]))
    for row in spare[: max(missing, 0)]:
        chosen[row["source"]].append(row)
    return {source: sorted(rows, key=lambda row: row["id"]) for source, rows in chosen.items()}


def _key(name: str, seed: int) -> int:
    return xxhash.xxh3_64_intdigest(f"{seed}:demo:{name}".encode())


def _write(path: Path, rows: list[Any]) -> str:
    """Write rows as JSON Lines under zstd unless the file holds those bytes already; return the digest of the lines."""
    import zstandard

    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    packed = zstandard.ZstdCompressor(level=9, write_checksum=True).compress(lines)
    if not path.is_file() or path.read_bytes() != packed:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        temporary.write_bytes(packed)
        temporary.replace(path)
    return xxhash.xxh3_128_hexdigest(lines)
