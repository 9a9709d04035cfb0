"""The tallies of a file's pieces, merged, are the tally of the whole."""

from __future__ import annotations

import itertools
from typing import get_args

from hypothesis import given
from hypothesis import strategies as st

from winnow.text import tally as module
from winnow.text.limits import Limits
from winnow.text.quarantine import Quarantined, Reason
from winnow.text.tally import Tally

REASONS = sorted(get_args(Reason))[:4]
events = st.lists(
    st.one_of(
        st.integers(1, 5),
        st.builds(
            lambda row, reason, records: Quarantined(row, None, reason, f"bad {row}", "", records),
            st.integers(0, 99),
            st.sampled_from(REASONS),
            st.integers(1, 3),
        ),
    ),
    max_size=40,
)


def counted(items: list[int | Quarantined]) -> Tally:
    tally = Tally()
    for item in items:
        if isinstance(item, int):
            tally.good(item)
        else:
            tally.add(item)
    return tally


@given(events, st.lists(st.integers(0, 40), max_size=4), st.integers(0, 5), st.sampled_from([0.0, 0.3, 1.0]))
def test_pieces_merge_into_the_whole(
    items: list[int | Quarantined], cuts: list[int], max_bad: int, fraction: float
) -> None:
    bounds = [0, *sorted(min(cut, len(items)) for cut in cuts), len(items)]
    listed = module.MAX_QUARANTINE_ROWS
    module.MAX_QUARANTINE_ROWS = 5
    try:
        whole, merged = counted(items), Tally()
        for start, end in itertools.pairwise(bounds):
            merged.merge(counted(items[start:end]))
        assert merged == whole
        limits = Limits(max_bad_records=max_bad, max_bad_fraction=fraction)
        assert merged.judge(limits) == whole.judge(limits)
        assert merged == whole
        assert whole.records == whole.occurrences + whole.quarantined
    finally:
        module.MAX_QUARANTINE_ROWS = listed


def test_rows_over_the_limit_are_summed_by_reason() -> None:
    tally = counted([Quarantined(row, None, "empty_text", f"bad {row}", "") for row in range(1002)])
    rows = tally.judge(Limits(max_bad_fraction=1.0))
    assert len(tally.listed) == 1000
    assert [(row.records, row.reason) for row in rows] == [(2, "empty_text")]
    assert "bad 1000" in rows[0].detail


def test_a_failed_file_has_no_occurrences_and_loses_no_record() -> None:
    tally = counted([5, *(Quarantined(row, None, "nul_byte", "bad", "") for row in range(3))])
    rows = tally.judge(Limits(max_bad_records=0, max_bad_fraction=0.1))
    assert (tally.records, tally.occurrences, tally.quarantined) == (8, 0, 8)
    assert [(row.reason, row.records) for row in rows] == [("file_failed", 5)]
    assert "max_bad_records=0" in (tally.failure or "")
