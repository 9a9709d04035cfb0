"""The corpus' digest: a function of the set of (document, source), brought forward by what changes."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from winnow.identity import doc_ids, ids_to_numpy
from winnow.stages.corpus_digest import LANES, digest_of, lanes_of

rows = st.dictionaries(st.text(max_size=5), st.sampled_from(["a", "b", "ü"]), max_size=20)


def lanes(documents: dict[str, str]) -> np.ndarray:
    return lanes_of(ids_to_numpy(doc_ids(documents)), pa.array(list(documents.values()), pa.string()))


@given(rows, st.randoms())
def test_order_does_not_matter(documents: dict[str, str], random) -> None:
    shuffled = list(documents.items())
    random.shuffle(shuffled)
    assert digest_of(lanes(documents)) == digest_of(lanes(dict(shuffled)))


@given(rows, rows)
def test_adding_and_taking_out_ends_where_it_began(documents: dict[str, str], others: dict[str, str]) -> None:
    before, more = lanes(documents), lanes(others)
    with np.errstate(over="ignore"):
        assert digest_of(before + more - more) == digest_of(before)


@given(rows, rows)
def test_different_sets_differ(one: dict[str, str], other: dict[str, str]) -> None:
    assert (digest_of(lanes(one)) == digest_of(lanes(other))) == (one == other)


def test_the_source_counts_and_pairs_do_not_swap() -> None:
    assert digest_of(lanes({"x": "a", "y": "b"})) != digest_of(lanes({"x": "b", "y": "a"}))


def test_every_lane_mixes_alone() -> None:
    found = lanes({"x": "a"})
    assert len(found) == LANES == len(set(found.tolist()))
