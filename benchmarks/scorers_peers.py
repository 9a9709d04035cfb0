"""The peers of benchmarks/scorers.py, each run by a Python that has it: ``python scorers_peers.py SCORER TEXTS``.

Prints one line of JSON: ``name``, seconds of ``fit``, ``speed`` of scoring in MB a second, and the ``values``. Nothing
of winnow is imported: the other Python need not have it.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def main() -> None:
    scorer, path = sys.argv[1:]
    given = json.loads(Path(path).read_text())
    peer = {"dsir": data_selection, "classifier": fasttext}[scorer]
    print(json.dumps(peer(given)))


def data_selection(given: dict[str, Any]) -> dict[str, Any]:
    """DSIR as released: its own counting, estimator and weights, called text by text in one process."""
    import numpy as np
    from data_selection.hashed_ngram_dsir import get_ngram_counts

    asked = given["pool"] + given["held_out"]
    started = time.perf_counter()
    raw, target = np.zeros(10_000, dtype=int), np.zeros(10_000, dtype=int)
    for text in given["pool"]:
        get_ngram_counts(text, counts=raw)
    for text in given["items"]:
        get_ngram_counts(text, counts=target)
    difference = np.log(target / target.sum() + 1e-8) - np.log(raw / raw.sum() + 1e-8)
    fitted = time.perf_counter()
    values = [float(np.dot(difference, get_ngram_counts(text))) for text in asked]
    seconds = time.perf_counter() - fitted
    return {"name": "data-selection", "fit": fitted - started, "speed": megabytes(asked) / seconds, "values": values}


def fasttext(given: dict[str, Any]) -> dict[str, Any]:
    """The classifier with DCLM's settings; the log odds of the label."""
    import math

    import fasttext

    def line(text: str) -> str:
        return " ".join(text.split())

    asked = given["pool"] + given["held_out"]
    with tempfile.TemporaryDirectory() as name:
        train = Path(name) / "train.txt"
        rows = [f"__label__hq {line(text)}" for text in given["items"]]
        rows += [f"__label__cc {line(text)}" for text in given["pool"]]
        train.write_text("\n".join(rows) + "\n", encoding="utf-8")
        started = time.perf_counter()
        model = fasttext.train_supervised(
            str(train), wordNgrams=2, lr=0.1, dim=100, epoch=5, minCount=1, thread=1, verbose=0
        )
        fitted = time.perf_counter()
        values = []
        for text in asked:
            # The wrapper's own predict() asks numpy for what numpy 2 refuses.
            found = {label: share for share, label in model.f.predict(line(text) + "\n", 2, 0.0, "strict")}
            values.append(math.log(found.get("__label__hq", 1e-9)) - math.log(found.get("__label__cc", 1e-9)))
        seconds = time.perf_counter() - fitted
    return {"name": "fastText", "fit": fitted - started, "speed": megabytes(asked) / seconds, "values": values}


def megabytes(texts: list[str]) -> float:
    return sum(len(text.encode()) for text in texts) / 1e6


if __name__ == "__main__":
    main()
