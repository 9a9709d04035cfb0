"""The tables' dictionary, rendered from the schema: ``python -m winnow.store.dictionary > docs/tables.md``."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from winnow.store.lineage import LINEAGE_COLUMNS, LINEAGE_MEANING
from winnow.store.schema import Column, Table, tables

STAGES = {
    "corpus": "corpus.md",
    "signals": "signals.md",
    "duplicates": "duplicates.md",
    "contamination": "contamination.md",
    "embeddings": "embeddings.md",
    "model": "model.md",
    "influence": "influence.md",
    "selection": "selection.md",
    "mixture": "mixture.md",
    "attribution": "attribution.md",
    "lab": "lab.md",
    "bookkeeping": "store.md",
}
"""The stages in pipeline order, each with its page."""

SCORES_WIDE: tuple[Column, ...] = (
    ("doc_id", "UUID", "the document; every live document has one row"),
    ("source", "VARCHAR", "source of its canonical occurrence"),
    (
        "influence",
        "DOUBLE",
        "score by the newest manifest's influence model, positive = helpful; null before a manifest",
    ),
    ("influence_checkpoint", "VARCHAR", "the checkpoint that the score holds for"),
    ("gopher_passed", "BOOLEAN", "Gopher's verdict, see `signals`"),
    ("cluster", "INTEGER", "its cluster, see `clusters`"),
    ("keeper_id", "UUID", "who is kept in its group of near duplicates (itself if kept); null outside a group"),
    ("contaminated", "BOOLEAN", "shares too long a run of words with the reference or an evaluation set"),
)
"""The columns of ``scores_wide``, which the published file adds and the schema therefore does not list."""

HEAD = """# Tables

Generated from `winnow/store/schema/` by `python -m winnow.store.dictionary > docs/tables.md`; do not edit by hand.

Ask them with `winnow sql`, or with any DuckDB client on `WINNOW_HOME/winnow.duckdb`; the meanings below are the
columns' comments there ([store.md](store.md) tells how that file is made). *DuckDB*: the rows are in the file itself.
*Parquet parts*: the table is a view over immutable Parquet files below `WINNOW_HOME/store/parts`. The key columns
identify a row; no constraint enforces them, uniqueness is the writer's duty.
"""

WIDE_HEAD = """## Published only

### `scores_wide`

One row a live document with its current judgements side by side, made anew whenever the store is published.
Beside the columns below it has one for every scorer in `scores` other than influence, named after the scorer, type
DOUBLE: of its versions, checkpoints and references, first those at the newest manifest's checkpoint (or at none), then
the one whose part was added last, then the greatest by name; null where that one has no score for the document.

Rows: DuckDB. Key: `doc_id`.
"""


LINEAGE_HEAD = f"""### `lineage`

{LINEAGE_MEANING} A view over `manifest_rows`, `manifests` and `shards`.

Rows: the tables'. Key: `version`, `order`.
"""


def render() -> str:
    """Return the page as Markdown: a section a stage in pipeline order, a list of columns a table."""
    public = [table for table in tables().values() if not table.internal]
    sections = [HEAD, _index(public)]
    for stage, page in STAGES.items():
        sections.append(f"## Stage: {stage}\n\nSee [{page}]({page}).\n")
        sections += [_table(table) for table in public if table.stage == stage]
    sections.append(WIDE_HEAD + "\n" + _columns(SCORES_WIDE))
    sections.append(LINEAGE_HEAD + "\n" + _columns(LINEAGE_COLUMNS))
    return "\n".join(sections)


def _index(public: Iterable[Table]) -> str:
    rows = [f"| [`{table.name}`](#{table.name}) | {_cell(table.meaning)} |" for table in public]
    rows.append("| [`scores_wide`](#scores_wide) | A document's current judgements side by side. |")
    rows.append(f"| [`lineage`](#lineage) | {LINEAGE_MEANING} |")
    return "\n".join(["| table | a row is |", "| --- | --- |", *rows, ""])


def _table(table: Table) -> str:
    place = "Parquet parts" if table.parts else "DuckDB"
    key = ", ".join(f"`{column}`" for column in table.key)
    return f"### `{table.name}`\n\n{table.meaning}\n\nRows: {place}. Key: {key}.\n\n{_columns(table.columns)}"


def _columns(columns: Iterable[Column]) -> str:
    rows = [f"| `{name}` | {kind} | {_cell(meaning)} |" for name, kind, meaning in columns]
    return "\n".join(["| column | type | meaning |", "| --- | --- | --- |", *rows, ""])


def _cell(text: str) -> str:
    """Keep a meaning from being read as Markdown: it may hold a pipe, a star or an angle bracket."""
    for sign in "|*<":
        text = text.replace(sign, "\\" + sign)
    return text


if __name__ == "__main__":
    sys.stdout.write(render())
