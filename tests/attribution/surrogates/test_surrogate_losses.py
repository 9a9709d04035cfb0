import numpy as np
import pytest

from winnow.attribution.surrogates.losses import GROUP, _swaps, gradients, grouped, line


def _values(count=12, seed=0):
    draw = np.random.default_rng(seed)
    return draw.normal(size=count), np.round(draw.normal(size=count), 1)


def _loss(name, scores, labels, weight):
    if name == "squared":
        return ((scores - labels) ** 2).sum() / 2
    if name == "robust":
        gap = np.abs(scores - labels)
        return np.where(gap <= 1, gap**2 / 2, gap - 0.5).sum()
    total = 0.0
    for i in range(len(scores)):
        for j in range(len(scores)):
            if labels[i] > labels[j]:
                total += weight[i, j] * np.log1p(np.exp(-(scores[i] - scores[j])))
    return total / (len(scores) - 1)


@pytest.mark.parametrize("name", ["squared", "robust", "pairwise", "lambda"])
def test_the_gradient_is_the_slope_of_the_loss(name):
    scores, labels = _values()
    weight = _swaps(scores, labels) if name == "lambda" else np.ones((12, 12))  # held fixed, as LambdaRank does
    found, curvature = gradients(name, scores, labels)
    for place in range(12):
        step = np.zeros(12)
        step[place] = 1e-5
        rise = _loss(name, scores + step, labels, weight) - _loss(name, scores - step, labels, weight)
        assert found[place] == pytest.approx(rise / 2e-5, abs=1e-6)
    assert (curvature >= 0).all()


def test_a_pair_weighs_as_much_as_dcg_changes_when_the_two_change_places():
    scores, labels = _values()
    gain = np.searchsorted(np.sort(labels), labels) / 11

    def dcg(values):
        order = np.argsort(-values, kind="stable")
        return (gain[order] / np.log2(np.arange(12) + 2)).sum()

    swaps, changes = _swaps(scores, labels), np.zeros((12, 12))
    for i in range(12):
        for j in range(12):
            turned = scores.copy()
            turned[i], turned[j] = scores[j], scores[i]
            changes[i, j] = abs(dcg(turned) - dcg(scores))
    assert np.allclose(swaps, changes / changes.mean())
    top, bottom = np.argsort(-scores)[[0, 1]], np.argsort(-scores)[[-2, -1]]
    assert gain[top[0]] != gain[top[1]] and gain[bottom[0]] != gain[bottom[1]]
    assert swaps[tuple(top)] / abs(gain[top[0]] - gain[top[1]]) > swaps[tuple(bottom)] / abs(
        gain[bottom[0]] - gain[bottom[1]]
    )


def test_ranking_losses_know_no_unit_and_pair_within_groups_only():
    scores, labels = _values(300)
    draw = np.random.default_rng(0)
    assert np.array_equal(gradients("pairwise", scores, labels)[0], gradients("pairwise", scores, 9 * labels + 4)[0])
    gradient, curvature = grouped("pairwise", scores, labels, draw)
    assert abs(gradient.sum()) < 1e-9 and (curvature > 0).all() and len(scores) > GROUP
    assert np.corrcoef(gradient, gradients("pairwise", scores, labels)[0])[0, 1] > 0.95


def test_the_line_gives_scores_the_unit_of_the_labels_and_never_turns_them_round():
    scores, labels = _values()
    slope, intercept = line(scores, 2 * scores + 1)
    assert (slope, intercept) == (pytest.approx(2), pytest.approx(1))
    assert line(scores, -scores) == (0.0, pytest.approx(-scores.mean()))
    assert line(np.ones(12), labels) == (0.0, pytest.approx(labels.mean()))
