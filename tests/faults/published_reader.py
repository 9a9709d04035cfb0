"""A user's process, which queries the published file until its input ends: ``python published_reader.py HOME HOW``.

HOW ``again`` opens the file by its name over and over; ``once`` keeps one connection, which must show one state to the
end. It prints what it saw as JSON. Nothing but DuckDB touches the file.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

import duckdb
from wholeness import published_problems

PAUSE = 0.25


def look(connection: duckdb.DuckDBPyConnection) -> tuple[int, str]:
    """Return the generation of a state and a digest of much of what can be asked of it."""
    generation = connection.execute("SELECT value::BIGINT FROM meta WHERE key = 'generation'").fetchall()[0][0]
    everything = connection.execute(
        """
        SELECT (SELECT bit_xor(hash(o)) FROM occurrences o), (SELECT bit_xor(hash(d)) FROM documents d),
               (SELECT bit_xor(hash(doc_id, text)) FROM texts), (SELECT bit_xor(hash(w)) FROM scores_wide w),
               (SELECT bit_xor(hash(s)) FROM signals s), (SELECT count(*) FROM costs)
        """
    ).fetchall()
    return generation, str(everything)


def read(path: Path, again: bool) -> dict[str, Any]:
    over = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
    seen: dict[int, str] = {}
    problems: list[str] = []
    reads = last = 0
    slowest = 0.0
    connection = None
    while not over.wait(PAUSE) and not problems:
        began = time.monotonic()
        if connection is None:
            connection = duckdb.connect(path, read_only=True)
        generation, state = look(connection)
        problems += published_problems(connection)
        if generation < last:
            problems.append(f"generation {generation} after {last}")
        if seen.setdefault(generation, state) != state:
            problems.append(f"generation {generation} shows two states")
        if not again and len(seen) > 1:
            problems.append(f"an open connection went from one state to another: {sorted(seen)}")
        last = generation
        reads += 1
        if again:
            connection.close()
            connection = None
        slowest = max(slowest, time.monotonic() - began)
    return {"reads": reads, "states": len(seen), "last": last, "slowest": slowest, "problems": problems}


if __name__ == "__main__":
    try:
        found = read(Path(sys.argv[1]) / "winnow.duckdb", sys.argv[2] == "again")
    except Exception as error:
        found = {"reads": 0, "states": 0, "last": 0, "slowest": 0, "problems": [f"{type(error).__name__}: {error}"]}
    print(json.dumps(found))
