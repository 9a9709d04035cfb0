"""Cut files into documents: text at headings and paragraphs, Python at its definitions."""

from __future__ import annotations

import ast
import itertools
import re
import warnings
from collections.abc import Iterator

LONGEST = 8_000  # characters of a document
_UNDERLINE = re.compile(r"([=\-~^\"'*+#`_.])\1{2,}\s*")


def paragraph_groups(text: str, target: int, longest: int = LONGEST) -> list[str]:
    """Cut at blank lines into groups of about ``target`` characters and at most ``longest``."""
    paragraphs = [piece for block in re.split(r"\n[ \t]*\n", text) for piece in _within(block.rstrip(), longest)]
    groups: list[str] = []
    for paragraph in paragraphs:
        if not paragraph.strip():
            continue
        if groups and len(groups[-1]) < target and len(groups[-1]) + len(paragraph) + 2 <= longest:
            groups[-1] += "\n\n" + paragraph
        else:
            groups.append(paragraph)
    return groups


def sections(text: str, target: int) -> list[tuple[str, str]]:
    """Return (heading, text) of each part of a Markdown or reStructuredText text, of about ``target`` characters."""
    lines = text.split("\n")
    starts = [0] + [k for k in range(1, len(lines)) if _is_heading(lines, k)] + [len(lines)]
    found = []
    heading = ""
    for start, stop in itertools.pairwise(starts):
        body = "\n".join(lines[start:stop])
        heading = next((line[:80] for line in lines[start:stop] if re.search(r"\w", line)), heading).strip("#= ")
        found += [(heading, group) for group in paragraph_groups(body, target)]
    return found


def docstrings(tree: ast.Module) -> Iterator[tuple[str, str, str]]:
    """Yield (qualified name, kind, docstring) of the module, its classes and its functions."""
    stack: list[tuple[str, ast.AST]] = [("", tree)]
    while stack:
        name, node = stack.pop()
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            kind = (
                "module" if isinstance(node, ast.Module) else "class" if isinstance(node, ast.ClassDef) else "function"
            )
            docstring = ast.get_docstring(node)
            if docstring and docstring.strip():
                yield name, kind, docstring.strip()
            for child in node.body:
                if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                    stack.append((f"{name}.{child.name}".strip("."), child))


def definitions(text: str, tree: ast.Module, target: int) -> list[tuple[int, str]]:
    """Return (first line, code) of pieces of about ``target`` characters, cut where a statement starts."""
    starts = {1}
    for node in tree.body:
        starts.add(_first_line(node))
        if isinstance(node, ast.ClassDef):
            starts |= {_first_line(child) for child in node.body}
    lines = text.split("\n")
    bounds = [*sorted(starts), len(lines) + 1]
    pieces: list[tuple[int, str]] = []
    for start, stop in itertools.pairwise(bounds):
        code = "\n".join(lines[start - 1 : stop - 1])
        if pieces and len(pieces[-1][1]) + len(code) < target:
            pieces[-1] = (pieces[-1][0], pieces[-1][1] + "\n" + code)
        else:
            pieces.append((start, code))
    cut = [(start, part.strip("\n")) for start, code in pieces for part in _within(code, LONGEST)]
    return [(start, code) for start, code in cut if code.strip()]


def parse(text: str) -> ast.Module | None:
    """Return the syntax tree of a Python file, or None where it is no Python of this version."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes in other people's strings
        try:
            return ast.parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None


def _first_line(node: ast.stmt) -> int:
    decorators = getattr(node, "decorator_list", [])
    return min([node.lineno, *(decorator.lineno for decorator in decorators)])


def _is_heading(lines: list[str], k: int) -> bool:
    if re.match(r"#{1,6} \S", lines[k]):
        return True
    underlined = k + 1 < len(lines) and lines[k].strip() and _UNDERLINE.fullmatch(lines[k + 1])
    return bool(underlined and not lines[k - 1].strip() and not _UNDERLINE.fullmatch(lines[k]))


def _within(block: str, longest: int) -> list[str]:
    """Cut a block at line ends, or within a line where it alone is longer, into pieces of at most ``longest``."""
    if len(block) <= longest:
        return [block]
    pieces = [""]
    for line in block.split("\n"):
        for start in range(0, max(len(line), 1), longest):
            part = line[start : start + longest]
            if pieces[-1] and len(pieces[-1]) + len(part) + 1 > longest:
                pieces.append(part)
            else:
                pieces[-1] += "\n" * bool(pieces[-1]) + part
    return pieces
