"""How many tokens of the budget each source gets: weights by a named policy, then Hamilton's rounding under caps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import lcm

import numpy as np
import pyarrow as pa

from winnow.errors import UserError
from winnow.mixture.policies import mixture_policy

MIXTURES = pa.schema(
    [
        ("mixture", pa.string()),
        ("source", pa.string()),
        ("weight", pa.float64()),
        ("tokens", pa.int64()),
        ("epochs", pa.float64()),
        ("method", pa.string()),
    ]
)


@dataclass(frozen=True)
class Mixture:
    """A plan of tokens a source, in the order of the source names.

    ``weights`` sum to 1 and are what the policy asked for; ``tokens`` sum to the budget and are what the sources can
    give; ``available`` are the tokens each has. ``method`` is the policy with its parameters.
    """

    method: str
    weights: dict[str, float]
    tokens: dict[str, int]
    available: dict[str, int]

    def epochs(self, source: str) -> float:
        """Return how often the source is seen: planned / available tokens."""
        return self.tokens[source] / self.available[source] if self.available[source] else 0.0

    def table(self, mixture: str) -> pa.Table:
        """Return the rows of the table ``mixtures`` under the name ``mixture``."""
        rows = [
            (mixture, source, weight, self.tokens[source], self.epochs(source), self.method)
            for source, weight in self.weights.items()
        ]
        columns = zip(*rows, strict=True) if rows else ([] for _ in MIXTURES)
        return pa.table(
            [pa.array(column, field.type) for column, field in zip(columns, MIXTURES, strict=True)], MIXTURES
        )


def source_weights(available: Mapping[str, int], method: str, **parameters: float) -> dict[str, float]:
    """Return each source's weight by a named policy, sources sorted; ``available`` is tokens a source.

    Raises :class:`UserError` for an unknown policy, a parameter it does not take or a bad value.
    """
    policy = mixture_policy(method)
    sources = sorted(available)
    try:
        values = policy(np.array([available[source] for source in sources], dtype=np.int64), **parameters)
    except TypeError as error:
        given = ", ".join(sorted(parameters)) or "none"
        raise UserError(f"mixture policy '{method}': parameters {given} do not fit it: {error}") from error
    return dict(zip(sources, values.tolist(), strict=True))


def plan_mixture(
    available: Mapping[str, int],
    token_budget: int,
    method: str = "natural",
    max_epochs: float = 1.0,
    **parameters: float,
) -> Mixture:
    """Plan the tokens each source gives to a budget.

    ``available`` tokens a source; no source gives more than ``max_epochs`` times that, and what it cannot give goes to
    the others in proportion to their weights. Raises as :func:`source_weights` and :func:`hamilton`.
    """
    if not max_epochs > 0:
        raise UserError(f"mixture, max_epochs: {max_epochs}; expected a positive number")
    weights = source_weights(available, method, **parameters)
    caps = {source: int(available[source] * max_epochs) for source in weights}
    described = ", ".join(f"{name}={value:g}" for name, value in sorted(parameters.items()))
    return Mixture(
        method=f"{method}({described})" if described else method,
        weights=weights,
        tokens=hamilton(weights, token_budget, caps),
        available={source: int(available[source]) for source in weights},
    )


def hamilton(weights: Mapping[str, float], budget: int, caps: Mapping[str, int]) -> dict[str, int]:
    """Split ``budget`` tokens by weight into whole tokens that sum to it exactly, none above its cap.

    Hamilton's method: everyone gets the whole part of its quota, and the largest remainders one more; ties go to the
    first name. A source whose quota reaches its cap gets the cap, and its surplus is split among the others by
    weight. Computed in whole numbers, so neither order nor rounding of floats matters. Raises :class:`UserError` when
    a weight is negative or not finite, when no weight is positive, or when the caps do not suffice, naming the sources.
    """
    for source, weight in weights.items():
        if not 0 <= weight < float("inf"):
            raise UserError(f"mixture, source '{source}': weight {weight}; expected a finite number, 0 or more")
    share = _whole_numbers({source: weight for source, weight in weights.items() if weight > 0})
    usable = sum(caps[source] for source in share)
    if usable < budget:
        have = ", ".join(f"'{source}' {caps[source]:,}" for source in sorted(share)) or "none has a positive weight"
        raise UserError(
            f"mixture: the budget is {budget:,} tokens, {budget - usable:,} more than its sources can give ({have}); "
            f"lower the budget, raise max_epochs or add documents"
        )
    tokens = dict.fromkeys(sorted(weights), 0)
    left = budget
    while share:
        total = sum(share.values())
        full = [source for source in share if left * share[source] >= caps[source] * total]
        if not full:
            break
        for source in full:
            tokens[source] = caps[source]
            del share[source]
        left -= sum(caps[source] for source in full)
    if share:
        total = sum(share.values())
        for source in share:
            tokens[source] = left * share[source] // total
        by_remainder = sorted(share, key=lambda source: (-(left * share[source] % total), source))
        for source in by_remainder[: left - sum(tokens[source] for source in share)]:
            tokens[source] += 1
    return tokens


def _whole_numbers(weights: Mapping[str, float]) -> dict[str, int]:
    """Return the weights as whole numbers in exactly the same proportions; every float is a ratio of two."""
    ratios = {source: float(weight).as_integer_ratio() for source, weight in weights.items()}
    common = lcm(*(denominator for _, denominator in ratios.values()))
    return {source: numerator * (common // denominator) for source, (numerator, denominator) in ratios.items()}
