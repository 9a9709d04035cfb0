"""Gopher's rules at their limits, and the reason a document is refused."""

from __future__ import annotations

import math

import pyarrow as pa
import pytest

from winnow.errors import UserError
from winnow.quality import GopherThresholds, compute_signals, gopher_verdict

RULES = GopherThresholds().rules()
PASSING = {
    "words": 200,
    "mean_word_length": 5.0,
    "frac_words_alpha": 1.0,
    "stop_words_distinct": 5,
    **{
        column: 0.0
        for column, comparison, _ in RULES
        if comparison == ">" and column not in ("words", "mean_word_length")
    },
}


def verdict(**changes: float) -> tuple[bool, str | None]:
    table = gopher_verdict(pa.Table.from_pylist([PASSING | changes]))
    return table["passed"][0].as_py(), table["reason"][0].as_py()


def test_the_paper_states_twenty_three_limits() -> None:
    assert len(RULES) == 23
    assert verdict() == (True, None)


@pytest.mark.parametrize(("column", "comparison", "limit"), RULES)
def test_the_limit_itself_passes_and_the_next_value_fails(column: str, comparison: str, limit: float) -> None:
    assert verdict(**{column: limit}) == (True, None)
    towards = -math.inf if comparison == "<" else math.inf
    beyond = math.nextafter(limit, towards) if isinstance(limit, float) else limit + (1 if comparison == ">" else -1)
    passed, reason = verdict(**{column: beyond})
    assert not passed
    assert reason is not None
    name, value, sign, bound = reason.split()
    assert (name, sign, bound) == (column, comparison, f"{limit:g}" if isinstance(limit, float) else str(limit))
    assert value != bound


def test_the_reason_names_the_first_failing_rule_with_value_and_limit() -> None:
    assert verdict(words=12, frac_dup_lines=0.9) == (False, "words 12 < 50")
    assert verdict(frac_dup_lines=0.41236, frac_words_alpha=0.5) == (False, "frac_words_alpha 0.5 < 0.8")
    assert verdict(frac_dup_lines=0.41236) == (False, "frac_dup_lines 0.4124 > 0.3")


def test_thresholds_can_be_changed() -> None:
    signals = pa.Table.from_pylist([PASSING | {"words": 12}])
    assert gopher_verdict(signals, GopherThresholds(min_words=12))["passed"].to_pylist() == [True]
    assert gopher_verdict(signals, GopherThresholds(min_words=13))["reason"].to_pylist() == ["words 12 < 13"]


def test_prose_passes_and_junk_is_refused_for_its_own_reason() -> None:
    prose = (
        "It was the best of times, it was the worst of times; and that is what the people of the town have to live "
        "with. Some would rather be elsewhere, far from these crowded streets, while others find comfort in every "
        "corner they know. Nobody asked the river, which kept its own counsel and ran slowly towards a distant sea."
    )
    texts = [prose, "", "word " * 80, "- item\n" * 60, "# " * 60 + prose, "x" * 2000]
    table = gopher_verdict(compute_signals(pa.array(texts, pa.large_string())))
    assert table["passed"].to_pylist() == [True, False, False, False, False, False]
    reasons = table["reason"].to_pylist()
    assert reasons[1] == "words 0 < 50"
    assert reasons[2] == "stop_words_distinct 0 < 2"
    assert reasons[3] == "mean_word_length 2.5 < 3"
    assert reasons[5] == "words 1 < 50"


def test_missing_signals_are_named() -> None:
    with pytest.raises(UserError, match="the signals lack frac_words_alpha"):
        gopher_verdict(pa.Table.from_pylist([PASSING]).drop(["frac_words_alpha"]))


def test_no_rows_give_no_verdicts() -> None:
    table = gopher_verdict(compute_signals(pa.array([], pa.large_string())))
    assert table.num_rows == 0
    assert table.schema == pa.schema({"passed": pa.bool_(), "reason": pa.string()})
