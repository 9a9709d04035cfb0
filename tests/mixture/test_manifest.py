import hashlib
import struct
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from winnow.errors import UserError
from winnow.identity import canonical_json, ids_from_numpy, ids_to_numpy
from winnow.mixture import ROWS, Manifest, build_manifest, diff_manifests, manifest_digest
from winnow.mixture.environment import recorded_environment

SETTINGS: dict[str, Any] = {
    "version": "v0001",
    "token_budget": 10_000,
    "seed": 7,
    "configuration": {"policy": "quad_ucb", "alpha": 0.35},
    "inputs": {"corpus": "c0", "reference": "r0", "checkpoint": "w0", "methods": {"influence": "2"}},
    "weights": {"books": 0.25, "web": 0.75},
}


def some_rows(count: int = 20, seed: int = 0) -> pa.Table:
    rng = np.random.default_rng(seed)
    return pa.table(
        {
            "order": pa.array(np.arange(count), pa.int64()),
            "doc_id": ids_from_numpy(rng.integers(0, 256, (count, 16), dtype=np.uint8)),
            "uri": pa.array([f"a/{i % 3}.jsonl" for i in range(count)]),
            "row": pa.array(range(count), pa.int64()),
            "source": pa.array(["books" if i % 4 == 0 else "web" for i in range(count)]),
            "tokens": pa.array(rng.integers(1, 90, count), pa.int64()),
            "repeats": pa.array(np.where(np.arange(count) % 5 == 0, 2, 1), pa.int32()),
            "reason": pa.array([f"selected: cluster {i % 7}, rank {i}" for i in range(count)]),
        },
        schema=ROWS,
    )


def put(rows: pa.Table, name: str, row: int, value: object) -> pa.Table:
    """Return the rows with one cell changed."""
    field = ROWS.field(name)
    if name == "doc_id":
        raw = ids_to_numpy(rows.column(name)).copy()
        raw[row] = value
        return rows.set_column(ROWS.names.index(name), field, ids_from_numpy(raw))
    cells = rows.column(name).to_pylist()
    cells[row] = value
    return rows.set_column(ROWS.names.index(name), field, pa.array(cells, field.type))


def build(rows: pa.Table | None = None, **changes: object) -> Manifest:
    return build_manifest(some_rows() if rows is None else rows, **{**SETTINGS, **changes})


def test_a_manifest_counts_its_documents_tokens_and_sources() -> None:
    rows = some_rows()
    made = build(rows)
    seen = rows.column("tokens").to_numpy() * rows.column("repeats").to_numpy()
    assert (made.documents, made.tokens) == (20, int(seen.sum()))
    assert made.sources["books"] == {"documents": 5, "tokens": int(seen[::4].sum()), "weight": 0.25}


def test_the_digest_is_the_documented_framing() -> None:
    rows = some_rows(3)
    head = canonical_json(
        {
            "format": "winnow-manifest-1",
            **{name: SETTINGS[name] for name in ("configuration", "inputs", "seed", "token_budget")},
        }
    ).encode()
    expected = struct.pack("<Q", len(head)) + head
    for row in rows.to_pylist():
        source, reason = row["source"].encode(), row["reason"].encode()
        frame = (
            struct.pack("<q", row["order"]) + row["doc_id"].bytes + struct.pack("<qi", row["tokens"], row["repeats"])
        )
        frame += struct.pack("<I", len(source)) + source + struct.pack("<I", len(reason)) + reason
        expected += struct.pack("<Q", len(frame)) + frame
    assert build(rows).digest == hashlib.sha256(expected).hexdigest()


def test_the_digest_does_not_know_paths_times_versions_or_what_is_recorded_beside_it() -> None:
    rows, made = some_rows(), build()
    moved = put(put(rows, "uri", 3, "elsewhere/z.parquet"), "row", 3, 99)
    same = [
        build(moved),
        build(version="v0044"),
        build(parent="f" * 64),
        build(snapshot=["p1", "p2"]),
        build(environment={"libraries": {"numpy": "9"}, "time": "2031-01-01"}),
        build(funnel={"web": {"records": 5}}, control={"digest": "d", "tokens": 3}),
        build(rows.take(np.random.default_rng(0).permutation(20))),
        build(rows.append_column("extra", pa.array(range(20)))),
    ]
    assert {other.digest for other in same} == {made.digest}


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 8},
        {"token_budget": 10_001},
        {"configuration": {"policy": "quad_ucb", "alpha": 0.36}},
        {"inputs": {**SETTINGS["inputs"], "corpus": "c1"}},
        {"inputs": {**SETTINGS["inputs"], "checkpoint": "w1"}},
        {"inputs": {**SETTINGS["inputs"], "methods": {"influence": "3"}}},
    ],
)
def test_the_digest_changes_with_every_semantic_setting_and_input(changes: dict[str, object]) -> None:
    assert build(**changes).digest != build().digest


@pytest.mark.parametrize(
    ("name", "value"), [("doc_id", 1), ("source", "books"), ("tokens", 91), ("repeats", 3), ("reason", "other")]
)
def test_the_digest_changes_with_every_semantic_cell(name: str, value: object) -> None:
    assert build(put(some_rows(), name, 6, value)).digest != build().digest


def test_the_digest_changes_with_the_order_and_with_the_number_of_rows() -> None:
    rows = some_rows()
    swapped = put(put(rows, "order", 4, 5), "order", 5, 4)
    assert len({build(swapped).digest, build(rows.slice(0, 19)).digest, build(rows).digest}) == 3


def test_text_cannot_move_between_source_and_reason_unseen() -> None:
    one = put(put(some_rows(1), "source", 0, "web"), "reason", 0, "books")
    two = put(put(some_rows(1), "source", 0, "webb"), "reason", 0, "ooks")
    weights = {"web": 0.5, "webb": 0.5}
    assert build(one, weights=weights).digest != build(two, weights=weights).digest


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 40), max_size=6))
def test_the_digest_does_not_depend_on_batches(cuts: list[int]) -> None:
    rows = some_rows(50)
    parts, start = [], 0
    for size in cuts:
        parts.append(rows.slice(start, size))
        start += size
    parts.append(rows.slice(start))
    head = [SETTINGS[name] for name in ("configuration", "inputs", "seed", "token_budget")]
    assert manifest_digest(parts, *head) == manifest_digest([rows], *head)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda rows: put(rows, "order", 4, 9), "row 4: order is 5, expected 4"),
        (lambda rows: put(rows, "repeats", 2, 0), "row 2: repeats is 0"),
        (lambda rows: put(rows, "tokens", 2, -5), "row 2: tokens is -5"),
        (lambda rows: put(rows, "uri", 2, None), "row 2: uri is null"),
        (lambda rows: put(rows, "tokens", 0, 99_999), "over the budget of 10,000"),
        (lambda rows: put(rows, "source", 0, "spam"), "'spam'"),
        (lambda rows: put(rows, "doc_id", 9, ids_to_numpy(rows.column("doc_id"))[3]), "row 9: .* already row 3"),
        (lambda rows: rows.drop_columns(["reason"]), "no column 'reason'"),
    ],
)
def test_rows_that_make_no_manifest_are_errors_that_name_the_place(
    spoil: Callable[[pa.Table], pa.Table], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        build(spoil(some_rows()))


def test_a_manifest_may_be_empty() -> None:
    made = build(some_rows(0))
    assert (made.documents, made.tokens, len(made.digest)) == (0, 0, 64)


def test_the_difference_names_added_removed_and_repeated_documents_and_tokens_a_source() -> None:
    rows = some_rows()
    a = build(rows.slice(0, 15))
    later = pa.concat_tables([rows.slice(5)])
    later = later.set_column(0, ROWS.field("order"), pa.array(range(15), pa.int64()))
    b = build(put(later, "repeats", 1, 4))  # document 6 of the rows
    changed = diff_manifests(a, b)
    ids = rows.column("doc_id").to_pylist()
    assert changed.removed.column("doc_id").to_pylist() == ids[:5]
    assert changed.added.column("doc_id").to_pylist() == ids[15:]
    assert (changed.kept, changed.repeated) == (10, 1)
    assert changed.tokens == {s: (a.sources[s]["tokens"], b.sources[s]["tokens"]) for s in ("books", "web")}
    same = diff_manifests(a, replace(a, version="v0002"))
    assert (same.added.num_rows, same.removed.num_rows, same.kept) == (0, 0, 15)


def test_a_hundred_thousand_rows_are_digested_in_seconds() -> None:
    rows = some_rows(100_000)
    head = [SETTINGS[name] for name in ("configuration", "inputs", "seed", "token_budget")]
    started = time.process_time()
    manifest_digest([rows], *head)
    assert time.process_time() - started < 5  # 0.3 s on a quiet core; the margin is for a busy one


def test_the_environment_names_libraries_cpu_class_and_dtype() -> None:
    recorded = recorded_environment("float32")
    assert recorded["dtype"] == "float32" and recorded["cpu_class"]
    assert {"numpy", "pyarrow"} <= set(recorded["libraries"])
