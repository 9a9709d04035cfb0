"""``decide`` against a document-by-document twin, with quotas, consumed documents, repeats and admission."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from winnow.selection import Arms, build_arms, decide, random_control
from winnow.selection.decide import BELOW_CUT, CONSUMED, NOT_ADMITTED, NOT_GRANTED, OVER_BUDGET
from winnow.selection.within import Candidates, Greedy, Taken, make_within


def twin(
    arms: Arms,
    blocks: list[tuple[int, int, int]],
    scores: np.ndarray,
    budget: int,
    admitted: np.ndarray,
    sources: list[str] | None,
    quotas: dict[str, int] | None,
) -> list[str]:
    """Return the reasons, one document after another, best score first and ties by doc_id."""
    names = arms.clusters[arms.arm_of].tolist()
    tokens, left = arms.tokens.tolist(), dict(quotas or {"": budget})
    key = [(0 if score == score else 1, -score if score == score else 0) for score in scores.tolist()]
    ranking = sorted(
        range(len(names)), key=lambda i: (not (admitted[i] and arms.available[i]), key[i], arms.doc_ids[i].tobytes())
    )
    may = [i for i in ranking if admitted[i] and arms.available[i]]
    grants: dict[int, list[tuple[int, int]]] = {}
    for number, cluster, size in blocks:
        if size:
            grants.setdefault(cluster, []).append((number, size))
    why: dict[int, str] = {}

    def take(i: int, told: str) -> bool:
        quota = sources[i] if sources and quotas else ""
        if i in why or tokens[i] > left.get(quota, 0):
            return False
        left[quota] = left.get(quota, 0) - tokens[i]
        why[i] = told
        return True

    fits = set()
    for cluster, parts in grants.items():
        total, used, alone = sum(size for _, size in parts), 0, 0
        for i in [i for i in may if names[i] == cluster]:
            if alone + tokens[i] <= total:
                alone += tokens[i]
                fits.add(i)
            ends = np.cumsum([size for _, size in parts])
            block = min(int(np.searchsorted(ends, used, side="right")), len(parts) - 1)
            if used + tokens[i] <= total and take(i, f"granted in round {parts[block][0]}"):
                used += tokens[i]
    for i in may:
        if names[i] in grants:
            take(i, "fills what whole documents left of the budget")
    if quotas and sources:
        for i in may:
            if names[i] not in grants:
                take(i, f"fills the quota of source {sources[i]}")
    rank = {i: 1 + sum(names[j] == names[i] for j in ranking[:place]) for place, i in enumerate(ranking)}
    cut = {name: max((rank[i] for i in why if names[i] == name), default=0) for name in names}
    told = []
    for i, name in enumerate(names):
        if i in why:
            told.append(f"selected: cluster {name}, {why[i]}, rank {rank[i]}")
        elif not arms.available[i]:
            told.append(CONSUMED)
        elif not admitted[i]:
            told.append(NOT_ADMITTED)
        elif name not in grants:
            told.append(NOT_GRANTED)
        else:
            told.append(OVER_BUDGET if i in fits or rank[i] < cut[name] else BELOW_CUT)
    return told


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 5), st.integers(0, 9999), st.booleans(), st.booleans(), st.data())
def test_every_reason_is_that_of_the_twin(
    count: int, clusters: int, seed: int, mixed: bool, thresholded: bool, data: st.DataObject
) -> None:
    rng = np.random.default_rng(seed)
    arms = build_arms(
        rng.integers(0, 256, (count, 16), dtype=np.uint8),
        rng.integers(0, clusters, count) * 7,
        rng.integers(0, 30, count),
        consumed=rng.random(count) < 0.2,
    )
    budget = data.draw(st.integers(1, 400))
    blocks = [
        (number, int(rng.choice(arms.clusters)), int(rng.integers(0, 60)))
        for number in range(data.draw(st.integers(0, 8)))
    ]
    scores = np.where(rng.random(count) < 0.15, np.nan, rng.integers(0, 4, count).astype(float))
    sources = rng.choice(["web", "books", "code"], count) if mixed else None
    quotas = {"web": budget // 3, "books": budget - budget // 3} if mixed else None
    ledger = pa.table([pa.array(column, pa.int64()) for column in zip(*blocks, strict=True)] or [[]] * 3,
                      names=["round", "cluster", "tokens_granted"])  # fmt: skip
    ledger = ledger.cast(pa.schema([(name, pa.int64()) for name in ledger.column_names]))
    within = make_within("threshold", {"by": "value", "value": 1.0, "order": "score"}) if thresholded else None
    made = decide(arms, ledger, scores, budget, 0, sources, quotas, within)
    admitted = scores >= 1 if thresholded else np.ones(count, dtype=bool)
    named = None if sources is None else sources.tolist()
    assert made.reasons == twin(arms, blocks, scores, budget, admitted, named, quotas)
    assert made.told(made.positions).to_pylist() == [made.reasons[i] for i in made.positions.tolist()]
    assert made.words().to_pylist() == [
        "selected" if text.startswith("selected") else
        {BELOW_CUT: "below_cluster_cut", NOT_GRANTED: "cluster_not_granted", OVER_BUDGET: "over_budget",
         NOT_ADMITTED: "not_admitted", CONSUMED: "consumed"}[text]
        for text in made.reasons
    ]  # fmt: skip
    control = random_control(arms.doc_ids, arms.tokens, budget, 0, sources, quotas, arms.available)
    assert not (control.selected & ~arms.available).any()


class Twice(Greedy):
    """Takes the two documents of the largest ids, the first of them three times."""

    def take(self, candidates: Candidates, members: np.ndarray, tokens: int) -> Taken:
        return Taken(members[::-1][:2], np.array([3, 1])[: len(members)], np.array([0.5, 2.0])[: len(members)])


def test_repeats_cost_tokens_and_travel_with_weights_and_places() -> None:
    ids = np.arange(5, dtype=np.uint8)[:, None].repeat(16, axis=1)
    arms = build_arms(ids, np.array([1, 1, 1, 1, 2]), np.full(5, 10))
    ledger = pa.table({"round": [1, 4], "cluster": [1, 1], "tokens_granted": [25, 25]})
    made = decide(arms, ledger, np.array([5.0, 4, 3, 2, 1]), 55, 0, within=Twice("twice", None))
    assert made.repeats.tolist() == [1, 0, 1, 3, 0]
    assert made.weights.tolist() == [1, 0, 2, 0.5, 0]
    assert made.rank.tolist() == [3, 4, 2, 1, 1]
    assert made.tokens == 50
    assert made.reasons[3] == "selected: cluster 1, granted in round 1, rank 1"
    assert made.reasons[2] == "selected: cluster 1, granted in round 4, rank 2"
    assert made.reasons[1] == BELOW_CUT


def test_a_method_without_what_it_needs_is_refused_by_name() -> None:
    from winnow.errors import UserError

    arms = build_arms(np.zeros((1, 16), np.uint8), np.zeros(1, int), np.ones(1, int))
    ledger = pa.table({"round": [1], "cluster": [0], "tokens_granted": [1]})
    with pytest.raises(UserError, match="within 'facility_location': it needs the documents' vectors"):
        decide(arms, ledger, None, 1, 0, within=make_within("facility_location"))
    with pytest.raises(UserError, match="within 'soft_cap': it needs the documents' scores"):
        decide(arms, ledger, None, 1, 0, within=make_within("soft_cap"))
    with pytest.raises(UserError, match="no such method; choose one of coverage, facility_location"):
        make_within("best")
    with pytest.raises(UserError, match="within 'gumbel_top_k', option 'temperature': 0; expected"):
        make_within("gumbel_top_k", {"temperature": 0})
