"""What runs say: speed, laws, ranks, comparisons; on runs made by hand."""

from __future__ import annotations

import numpy as np
import pytest
from small_lab import small_pool

from winnow.errors import UserError
from winnow.lab.compare import collective_outliers, compare_choices, compare_models, near_groups, template_of
from winnow.lab.kept import RunResult
from winnow.lab.laws import fit_ladder, fit_loss_to_loss
from winnow.lab.measures import Cost
from winnow.lab.pool import make_pool
from winnow.lab.ranking import kendall, rank_agreement
from winnow.lab.speed import project, reached, speeds
from winnow.lab.tables import (
    choices_table,
    curve_plot,
    differences_table,
    outliers_table,
    projection_table,
    ranking_text,
    speed_table,
)

TOKENS = np.array([0, 100, 200, 300, 400])


def made(preset: str, losses: list[float], seed: int = 0, model: str = "lab", **changes: object) -> RunResult:
    values = np.array(losses, dtype=np.float64)
    settings = {
        "key": f"{preset}{seed}{model}", "preset": preset, "target": "t", "seed": seed, "model": model,
        "parameters": 1000, "tokens": TOKENS, "losses": values, "pulls": 0,
        "out": ((400, {"t": float(values[-1]), "source:x": 5.0}),),
        "items": {"t": np.array([values[-1] - 0.5, values[-1] + 0.5, np.nan])},
        "positions": np.array([0, 1, 2]), "stages": np.zeros(3), "costs": (),
    }  # fmt: skip
    return RunResult(**{**settings, **changes})  # type: ignore[arg-type]


def test_a_level_is_reached_on_the_line_between_the_points_around_it():
    assert reached(TOKENS, np.array([6.0, 5.0, 4.0, 3.0, 2.0]), 4.5) == 150.0


def test_a_curve_that_rises_again_is_read_by_its_least_so_far():
    assert reached(TOKENS, np.array([6.0, 4.0, 5.0, 4.5, 3.0]), 3.5) == 350.0


def test_a_level_never_reached_is_never():
    assert reached(TOKENS, np.array([6.0, 5.0, 4.5, 4.3, 4.2]), 4.0) == np.inf
    assert reached(TOKENS, np.array([3.0, 2.0, 2.0, 2.0, 2.0]), 4.0) == 0.0


def test_scoring_is_counted_up_to_where_the_level_is_reached():
    costs = (Cost("score", 1.2e6, 1.0, 10), Cost("embed", 0.6e6, 2.0, 10), Cost("score", 9e9, 1.0, 10, at_tokens=300))
    runs = [made("random", [6, 5, 4.5, 4.2, 4.0]), made("better", [6, 4.5, 4.0, 3.5, 3.0], costs=costs)]
    best, base = speeds(runs)
    assert (best.preset, best.tokens, base.tokens) == ("better", 0.5, 1.0)
    # training: 6 x 1000 x 400 = 2.4e6 in all; half of it and 1.8e6 of scoring
    assert best.flops == pytest.approx(0.5)
    assert best.scored_flops == pytest.approx(0.5 + 1.8e6 / 2.4e6)
    assert best.difference == pytest.approx(-1.0)
    assert np.isnan(best.tokens_low)


def test_intervals_of_speed_come_from_resampled_seeds_and_hold_the_mean():
    runs = [made("random", [6, 5, 4.5, 4.2, 4.0 + 0.1 * seed], seed) for seed in range(3)]
    runs += [made("better", [6, 4.6, 4.0 + 0.3 * seed, 3.5, 3.0], seed) for seed in range(3)]
    best = speeds(runs)[0]
    assert best.tokens_low < best.tokens < best.tokens_high
    assert best.error == 0.0
    assert "never" not in speed_table([best])


def test_an_interval_that_reaches_never_says_so():
    runs = [made("random", [6, 5, 4.5, 4.2, 4.0], seed) for seed in range(2)]
    runs += [made("worse", [6, 5, 4.5, 4.4, 4.3 - 0.5 * seed], seed) for seed in range(2)]
    worse = next(row for row in speeds(runs) if row.preset == "worse")
    assert worse.tokens_high == np.inf
    assert "never]" in speed_table([worse])


def test_projected_cost_of_model_passes_is_a_constant_share_and_the_encoders_falls():
    costs = (Cost("score", 2.4e6, 0.0, 1), Cost("embed", 2.4e6, 0.0, 1))
    small, large = project([made("p", [6, 5, 4, 3, 2], costs=costs)], [(1000, 400), (10_000, 4000)])
    assert (small.model_share, small.encoder_share) == (pytest.approx(1.0), pytest.approx(1.0))
    assert (large.model_share, large.encoder_share) == (pytest.approx(1.0), pytest.approx(0.1))
    assert "Projection, not a measurement" in projection_table([small, large])


def test_kendall_counts_pairs_and_ties():
    assert kendall(np.array([1.0, 2, 3]), np.array([1.0, 2, 3])) == 1.0
    assert kendall(np.array([1.0, 2, 3]), np.array([3.0, 2, 1])) == -1.0
    assert kendall(np.array([1.0, 2, 3, 4]), np.array([1.0, 3, 2, 4])) == pytest.approx(4 / 6)
    assert kendall(np.array([1.0, 1.0]), np.array([1.0, 2.0])) == 0.0


def test_an_order_that_holds_at_two_sizes_says_so_and_one_that_flips_names_the_pair():
    runs = [
        made(f"p{place}", [6, 5, 4, 3, level + 0.01 * seed], seed, model)
        for model in ("small", "large") for place, level in enumerate([1.0, 2.0, 3.0, 4.0]) for seed in range(2)
    ]  # fmt: skip
    same = rank_agreement(runs, "t", ("small", "large"))
    assert same.holds and same.best and same.flips == ()
    assert same.kendall == 1.0
    flipped = [run for run in runs if run.model == "small" or run.preset in ("p2", "p3")]
    flipped += [made("p0", [6, 5, 4, 3, 2.5], s, "large") for s in range(2)]
    flipped += [made("p1", [6, 5, 4, 3, 1.5], s, "large") for s in range(2)]
    other = rank_agreement(flipped, "t", ("small", "large"))
    assert other.flips == (("p0", "p1"),)
    assert not other.best
    assert "not first" in ranking_text(other)


def test_too_few_presets_have_no_rank():
    with pytest.raises(UserError, match="share 1 presets"):
        rank_agreement([made("a", [1, 1, 1, 1, 1], model=m) for m in ("s", "l")], "t", ("s", "l"))


def test_a_shifted_power_law_between_losses_is_found_and_carried_on():
    first = np.linspace(6.0, 4.0, 12)
    second = 1.5 + 0.8 * (first - 2.0) ** 1.3
    law = fit_loss_to_loss([(first, second), (first[::2] * 1.0, second[::2])])
    expected = 1.5 + 0.8 * (3.5 - 2.0) ** 1.3
    point, low, high = law.predict(3.5)
    assert point == pytest.approx(expected, rel=0.02)
    assert low <= point * 1.01 and high >= point * 0.99
    assert law.error < 1e-3


def ladder_runs(noise: float = 0.0) -> list[RunResult]:
    runs = []
    tokens = np.array([2e5, 4e5, 6e5, 8e5, 1e6])
    for model, parameters in (("small", 250_000), ("large", 1_000_000)):
        for seed in range(2):
            losses = 1.0 + 80 * parameters**-0.3 + 60 * tokens**-0.25 + noise * seed
            runs.append(made("p", losses.tolist(), seed, model, parameters=parameters, tokens=tokens.astype(np.int64)))
    return runs


def test_a_ladder_finds_the_loss_of_a_larger_model_after_more_tokens():
    law = fit_ladder(ladder_runs(0.01))
    expected = 1.0 + 80 * 4e6**-0.3 + 60 * 4e6**-0.25
    point, low, high = law.predict(4e6, 4e6)
    assert point == pytest.approx(expected, rel=0.05)
    assert low <= high
    assert law.error < 0.01


def test_a_ladder_of_one_size_refuses_another():
    law = fit_ladder([run for run in ladder_runs() if run.model == "small"])
    assert law.predict(0.0, 2e6)[0] < ladder_runs()[0].loss
    with pytest.raises(UserError, match="one model size"):
        law.predict(4e6, 2e6)


def test_choices_are_compared_by_documents_sources_and_clusters():
    pool = small_pool(30)
    a, b = np.flatnonzero(pool.sources == "a"), np.flatnonzero(pool.sources == "b")
    first, second = made("x", [1] * 5, positions=a), made("y", [1] * 5, positions=np.concatenate([a[:5], b[:5]]))
    found = compare_choices(pool, first, second)
    assert found.documents == pytest.approx(5 / 15)
    assert found.sources["a"][0] == 1.0
    assert found.sources["b"][0] == 0.0
    assert 0 < found.cluster_distance < 1
    assert compare_choices(pool, first, first).cluster_distance == 0.0
    assert "x" in choices_table([found])


def test_models_are_compared_item_by_item_over_shared_seeds():
    worse = [made("w", [6, 5, 4, 3, 2.0 + 0.1 * seed], seed) for seed in range(2)]
    better = [made("b", [6, 5, 4, 3, 1.5 + 0.1 * seed], seed) for seed in range(2)]
    (found,) = compare_models(better, worse)
    assert found.mean == pytest.approx(-0.5)
    assert found.items == 1.0
    assert found.seeds == 2
    assert found.low <= found.mean <= found.high < 0
    assert "-0.5000" in differences_table([found])
    with pytest.raises(ValueError, match="no seed in common"):
        compare_models(better, [made("w", [1] * 5, 9)])


def test_copies_and_one_template_among_the_chosen_are_collective_outliers():
    words = [f"{first} {second}" for first in ("red", "blue", "green", "grey") for second in ("fox", "hen", "cow")]
    base = "the quick brown animal jumps over a lazy dog while nobody looks at the river bank today"
    copies = [f"{base} and then again number {number}" for number in range(6)]
    others = [f"{words[n % 12]} story {n} " + " ".join(f"word{n}x{m}" for m in range(15)) for n in range(90)]
    form = [f"user: hi\nsystem: yes {n} " + " ".join(f"say{n}y{m}" for m in range(9)) for n in range(4)]
    texts = copies + others + form
    pool = make_pool(texts, ["s"] * 100, [np.array([1, 2])] * 100)
    near = near_groups(pool)
    assert len(np.unique(near)) == 95
    chosen = np.flatnonzero([text in copies + form for text in pool.texts.tolist()])
    found = collective_outliers(pool, chosen, near)
    assert (found[0].kind, found[0].chosen, found[0].collective) == ("near_duplicates", 0.6, True)
    template = next(one for one in found if one.kind == "template" and one.name == "user: | system:")
    assert (template.chosen, template.pool, template.collective) == (0.4, 0.04, True)
    assert not any(one.collective for one in collective_outliers(pool, np.arange(100), near))
    wordless = make_pool([*texts, "..."], ["s"] * 101, [np.array([1, 2])] * 101)
    assert len(np.unique(near_groups(wordless))) == 96
    assert "user: / system:" not in outliers_table([("p", template)])


def test_a_template_is_the_first_word_of_its_first_lines():
    assert template_of("USER: a\n\nSYSTEM: b\nUSER: c\nx") == "user: | system: | user:"
    assert template_of("") == ""


def test_curves_are_drawn_for_more_presets_than_there_are_colours():
    runs = [made(f"p{place}", [6, 5, 4, 3, 2]) for place in range(12)]
    assert curve_plot(runs, "t", "lab").startswith(b"\x89PNG")
