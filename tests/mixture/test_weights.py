import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from winnow.errors import UserError
from winnow.mixture import hamilton, plan_mixture, source_weights
from winnow.mixture.policies import policy_names

AVAILABLE = {"web": 800, "books": 100, "code": 100}


def test_policies_are_found_by_the_name_of_their_file() -> None:
    assert policy_names() == ["natural", "temperature"]


def test_natural_weights_are_proportional_to_tokens() -> None:
    assert source_weights(AVAILABLE, "natural") == {"books": 0.1, "code": 0.1, "web": 0.8}


def test_temperature_raises_small_sources() -> None:
    weights = source_weights(AVAILABLE, "temperature", temperature=2.0)
    total = math.sqrt(800) + 2 * math.sqrt(100)
    assert weights["web"] == pytest.approx(math.sqrt(800) / total)
    assert sum(weights.values()) == pytest.approx(1.0)
    assert source_weights(AVAILABLE, "temperature", temperature=1.0) == pytest.approx(
        source_weights(AVAILABLE, "natural")
    )
    extreme = source_weights({"a": 10**15, "b": 10**14}, "temperature", temperature=0.001)
    assert extreme["a"] == 1.0 and np.isfinite(list(extreme.values())).all()


def test_unknown_policies_parameters_and_values_are_errors_that_name_them() -> None:
    with pytest.raises(UserError, match=r"'doremi'.*natural, temperature"):
        source_weights(AVAILABLE, "doremi")
    with pytest.raises(UserError, match=r"'natural'.*temperature"):
        source_weights(AVAILABLE, "natural", temperature=2.0)
    with pytest.raises(UserError, match="temperature: 0"):
        source_weights(AVAILABLE, "temperature", temperature=0.0)


def test_hamilton_gives_the_largest_remainders_the_odd_tokens() -> None:
    caps = dict.fromkeys("abc", 1000)
    # quotas of 10: 4.5, 3.5, 2.0 and then 4.6, 3.1, 2.3
    assert hamilton({"b": 0.4375, "a": 0.5625, "c": 0.25}, 10, caps) == {"a": 5, "b": 3, "c": 2}
    assert hamilton({"a": 46.0, "b": 31.0, "c": 23.0}, 10, caps) == {"a": 5, "b": 3, "c": 2}


def test_the_surplus_of_a_capped_source_goes_to_the_others_by_weight() -> None:
    assert hamilton({"a": 0.5, "b": 0.25, "c": 0.25}, 100, {"a": 10, "b": 100, "c": 100}) == {"a": 10, "b": 45, "c": 45}


def test_a_source_of_size_zero_or_weight_zero_gets_nothing() -> None:
    assert hamilton({"a": 1.0, "b": 1.0}, 7, {"a": 0, "b": 9}) == {"a": 0, "b": 7}
    assert hamilton({"a": 0.0, "b": 1.0}, 7, {"a": 9, "b": 9}) == {"a": 0, "b": 7}


def test_too_few_tokens_are_an_error_that_names_the_sources() -> None:
    with pytest.raises(UserError, match=r"5 more than .*'books' 10, 'web' 20"):
        hamilton({"web": 0.5, "books": 0.5, "off": 0.0}, 35, {"web": 20, "books": 10, "off": 99})


@pytest.mark.parametrize("weight", [-0.1, math.nan, math.inf])
def test_a_weight_that_is_no_weight_is_an_error(weight: float) -> None:
    with pytest.raises(UserError, match="'a'"):
        hamilton({"a": weight}, 1, {"a": 1})


def test_the_plan_is_a_table_with_epochs() -> None:
    plan = plan_mixture({"web": 1000, "books": 100}, 600, "temperature", temperature=4, max_epochs=2)
    assert sum(plan.tokens.values()) == 600 and plan.tokens["books"] == 200
    rows = plan.table("v1").to_pylist()
    assert rows[0]["mixture"] == "v1" and rows[0]["epochs"] == 2.0
    assert rows[0]["method"] == "temperature(temperature=4)"
    assert [row["source"] for row in rows] == ["books", "web"]


def test_a_natural_plan_over_the_whole_pool_takes_all_of_it() -> None:
    assert plan_mixture(AVAILABLE, 1000).tokens == AVAILABLE


sources = st.dictionaries(
    st.text(max_size=4),
    st.tuples(st.floats(0, 1e6) | st.sampled_from([1e-300, 1 / 3]), st.integers(0, 10**13)),
    max_size=12,
)


@given(sources, st.integers(0, 10**13), st.randoms())
def test_hamilton_sums_exactly_respects_caps_and_ignores_order(table: dict, budget: int, random: object) -> None:
    weights = {name: weight for name, (weight, _) in table.items()}
    caps = {name: cap for name, (_, cap) in table.items()}
    usable = sum(cap for name, cap in caps.items() if weights[name] > 0)
    if budget > usable:
        with pytest.raises(UserError, match="budget"):
            hamilton(weights, budget, caps)
        return
    tokens = hamilton(weights, budget, caps)
    assert sum(tokens.values()) == budget
    assert all(0 <= tokens[name] <= caps[name] for name in tokens)
    names = list(weights)
    random.shuffle(names)  # type: ignore[attr-defined]
    assert hamilton({name: weights[name] for name in names}, budget, caps) == tokens
    free = [name for name in tokens if weights[name] > 0 and tokens[name] < caps[name]]
    for one in free:  # quota rule: sources below their caps differ from proportion by less than a token each
        for two in free:
            bound = max(weights[one], weights[two])
            assert abs(tokens[one] * weights[two] - tokens[two] * weights[one]) <= 1.001 * bound + 1e-9 * budget * bound
