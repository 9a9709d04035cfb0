"""A lab of three kinds of documents: choices, trainings, and what is kept of them."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_lab import SETTINGS, SMALL, small_lab, small_pool, small_target

from winnow.errors import UserError
from winnow.lab.choosing import choose
from winnow.lab.kept import read_run, read_runs, write_run
from winnow.lab.measures import World, measure_names
from winnow.lab.pool import hold_out, make_pool
from winnow.lab.runs import Lab, Request, open_lab, pack_chosen, reweighing, run, run_all
from winnow.lab.targets import Target, leaking, require_apart, split_reference, with_tokens, without_leaks
from winnow.presets import Preset, ScoreTerm, load_preset, preset_names, read_preset


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return small_lab(tmp_path_factory.mktemp("lab"))


def world_of(lab: Lab, seed: int = 0) -> World:
    checkpoint = lab.warm("lab").checkpoint(lab.settings.training())
    return World(lab.pool, lab.targets["first"], (checkpoint,), lab.available, seed)


def test_a_pool_is_the_same_in_whatever_order_its_documents_come():
    texts, tokens = [f"text {n}" for n in range(9)], [np.arange(n + 1) for n in range(9)]
    back = list(range(8, -1, -1))
    first = make_pool(texts, ["s"] * 9, tokens)
    second = make_pool([texts[n] for n in back], ["s"] * 9, [tokens[n] for n in back])
    assert first.digest == second.digest
    assert first.texts.tolist() == second.texts.tolist()
    assert make_pool([*texts, texts[0]], ["s"] * 10, [*tokens, tokens[0]]).digest == first.digest
    with pytest.raises(UserError, match="9 texts but 8 sources"):
        make_pool(texts, ["s"] * 8, tokens)


def test_held_out_documents_are_drawn_from_each_source_and_spare_what_is_planted():
    pool = replace(small_pool(90), planted=np.array(["x", ""] * 45, dtype=object))
    left, drawn = hold_out(pool, 3, seed=0)
    assert set(drawn) == {"a", "b", "c"}
    assert pool.planted is not None
    assert all(pool.planted[row] == "" for rows in drawn.values() for row in rows)
    assert left.sum() == 90 - sum(map(len, drawn.values()))


def test_topics_stay_whole_and_judging_items_near_selecting_ones_go():
    texts = [f"topic{n // 4} item {n} " + " ".join(f"w{n}v{m}" for m in range(12)) for n in range(80)]
    topics = [f"topic{n // 4}" for n in range(80)]
    target = split_reference("r", texts, topics)
    parts = [{text.split()[0] for text in part} for part in (target.selecting, target.judging)]
    assert parts[0] and parts[1] and not parts[0] & parts[1]
    assert target.removed == {"judging": 0}
    run_of_words = "one two three four five six seven eight nine"
    shared = split_reference("r", [f"{text} {run_of_words}" if n % 2 else text for n, text in enumerate(texts)], topics)
    assert shared.removed["judging"] > 0
    assert not any(run_of_words in text for text in shared.judging)


def test_a_reference_without_two_topics_has_no_judging_part():
    with pytest.raises(UserError, match="part is empty"):
        split_reference("r", ["a b", "c d"], ["same", "same"])


def test_documents_that_hold_an_item_leave_the_pool_and_a_leak_is_refused():
    item = " ".join(f"secret{n}" for n in range(20))
    texts = [f"document {n} " + " ".join(f"p{n}q{m}" for m in range(20)) for n in range(8)] + [f"before {item} after"]
    pool = make_pool(texts, ["s"] * 9, [np.arange(9)] * 9)
    target = Target("r", ("unlike anything in there at all really",), (item,))
    assert leaking(pool, target).sum() == 1
    with pytest.raises(UserError, match="leaks into the pool: 1 documents"):
        require_apart(pool, target)
    left, (told,) = without_leaks(pool, [target])
    assert len(left) == 8
    assert told.removed["pool"] == 1
    require_apart(left, told)
    with pytest.raises(UserError, match="a reference that the pool was not made of"):
        without_leaks(pool, [Target("r", ("x",), tuple(texts))])


def test_judging_items_are_cut_to_the_tokens_asked_for():
    target = Target("r", ("s one", "s"), ("a b c", "d e f", "g h i"))
    found = with_tokens(target, lambda texts: [np.arange(len(text.split())) for text in texts], 2, judging_tokens=4)
    assert [len(one) for one in found.judging_tokens] == [2, 2]
    assert found.selecting == ("s one",)
    with pytest.raises(UserError, match="no item of two or more tokens"):
        with_tokens(target, lambda texts: [np.arange(1) for _ in texts], 2)


def test_every_preset_is_a_preset_with_a_description():
    for name in preset_names():
        preset = load_preset(name)
        assert preset.description, name
        for term in (*preset.score, *((preset.reward,) if preset.reward else ())):
            assert term.scorer in measure_names(), name
    with pytest.raises(UserError, match="no such preset; choose one of"):
        load_preset("nothing")


def test_a_wrong_key_of_a_preset_is_named(tmp_path: Path):
    path = tmp_path / "mine.toml"
    path.write_text('[selection]\nwithn = "random"\n')
    with pytest.raises(UserError, match="'withn': no such key"):
        read_preset(path)
    path.write_text('[selection]\nscore = ["dsir"]\n')
    with pytest.raises(UserError, match="no list of terms"):
        read_preset(path)


def test_a_choice_covers_the_budget_spares_the_warm_up_and_costs_are_told(lab: Lab):
    for name in ("random", "stratified", "dsir", "default"):
        world = world_of(lab)
        chosen = choose(world, load_preset(name), 2048)
        assert chosen.tokens(lab.pool.lengths) >= 2048, name
        assert not np.isin(chosen.positions, lab.warm_rows).any(), name
        assert [cost.step for cost in chosen.costs][-1] == "decide"
    steps = [cost.step for cost in chosen.costs]
    assert steps.count("score gradient") == 1  # the reward is the score that is known already
    assert sum(cost.flops for cost in chosen.costs) > 0
    assert chosen.ledger["tokens_granted"].to_numpy().sum() >= 2048


def test_a_score_for_the_target_chooses_its_kind_and_its_sign_is_positive(lab: Lab):
    def share(preset: Preset) -> float:
        return float((lab.pool.sources[choose(world_of(lab), preset, 1024).positions] == "a").mean())

    assert share(load_preset("dsir")) > share(load_preset("random")) + 0.2
    opposite = Preset("x", score=(ScoreTerm("dsir", weight=-1.0),))
    assert share(opposite) < share(load_preset("random")) - 0.2


def test_what_cannot_be_chosen_is_refused_with_a_reason(lab: Lab):
    with pytest.raises(UserError, match="token budget"):
        choose(world_of(lab), load_preset("random"), 10**9)
    without = replace(lab.pool, vectors=None)
    with pytest.raises(UserError, match="needs the documents' vectors"):
        choose(replace(world_of(lab), pool=without), load_preset("quad"), 1024)
    with pytest.raises(UserError, match=r"bandit\.arms: no such setting"):
        choose(world_of(lab), Preset("x", arms="clusters", bandit={"arms": 3}), 1024)
    with pytest.raises(UserError, match="no measure 'nothing'"):
        choose(world_of(lab), Preset("x", score=(ScoreTerm("nothing"),)), 1024)
    with pytest.raises(UserError, match="name a reward or a score"):
        choose(world_of(lab), Preset("x", arms="clusters", policy="greedy"), 1024)


def test_repeated_documents_are_read_as_often_and_weights_follow_their_tokens(lab: Lab):
    world = world_of(lab)
    chosen = choose(world, load_preset("random"), 1024)
    twice = replace(chosen, positions=np.repeat(chosen.positions[:40], 2), weights=np.repeat([1.0, 2.0], 40))
    windows, weights = pack_chosen(lab.pool, twice, 32, 0, 10)
    assert weights is not None
    assert windows.shape == weights.shape == (10, 32)
    length = lab.pool.lengths[chosen.positions[0]]
    assert windows.reshape(-1)[:length].tolist() == windows.reshape(-1)[length : 2 * length].tolist()
    assert pack_chosen(lab.pool, chosen, 32, 0, 10)[1] is None
    with pytest.raises(UserError, match="admits too few documents"):
        pack_chosen(lab.pool, chosen, 32, 0, 10**6)


def test_a_run_is_kept_whole_and_read_again_with_the_same_bits(lab: Lab):
    request = Request(load_preset("dsir"), "first")
    first = run(lab, request)
    path = next(iter((lab.folder / "runs").glob(first.key[:24])))
    assert first.tokens.tolist() == [0, 512, 1024, 1536, 2048]
    assert first.losses[-1] < first.losses[0]
    assert [tokens for tokens, _ in first.out] == [0, 1024, 2048]
    assert set(first.final) == {"first", "second", "source:a", "source:b", "source:c"}
    again = read_run(path)
    assert again is not None
    assert again.losses.tobytes() == first.losses.tobytes()
    assert again.out == first.out
    assert again.costs == first.costs
    shutil.rmtree(path)
    fresh = run(lab, request)
    assert fresh.losses.tobytes() == first.losses.tobytes()
    assert fresh.positions.tobytes() == first.positions.tobytes()
    write_run(path, replace(fresh, seed=99))  # another process was faster: its run stays
    kept = read_run(path)
    assert kept is not None
    assert kept.seed == fresh.seed
    (path / "run.json").write_text("{")
    with pytest.raises(UserError, match="not a run of the lab"):
        read_run(path)
    shutil.rmtree(path)


def test_a_run_depends_on_preset_target_seed_and_settings_but_not_on_names(lab: Lab):
    warm = lab.warm("lab").digest
    keys = {
        lab.key(request, warm)
        for request in (
            Request(load_preset("random"), "first"), Request(load_preset("random"), "second"),
            Request(load_preset("random"), "first", 1), Request(load_preset("dsir"), "first"),
        )
    }  # fmt: skip
    assert len(keys) == 4
    assert lab.key(Request(replace(load_preset("random"), name="other"), "first"), warm) in keys
    with pytest.raises(UserError, match="no reference 'third'; there are first, second"):
        lab.key(Request(load_preset("random"), "third"), warm)


def test_stages_read_as_many_tokens_take_nothing_twice_and_join_their_curves(lab: Lab):
    staged = run(lab, Request(Preset("staged", within="random", stages=2), "first"))
    assert staged.tokens.tolist() == [0, 512, 1024, 1536, 2048]
    assert len(np.unique(staged.positions)) == len(staged.positions)
    assert np.unique(staged.stages).tolist() == [0, 1]
    assert {cost.at_tokens for cost in staged.costs} == {0, 1024}


def test_a_preset_that_fails_is_told_and_the_others_are_made(lab: Lab):
    presets = [load_preset("random"), Preset("wrong", score=(ScoreTerm("nothing"),))]
    seen = []
    results, failed = run_all(
        lab,
        [Request(one, "first") for one in presets],
        progress=lambda done, total, request, _: seen.append((done, total)),
    )
    assert [one.preset for one in results] == ["random"]
    assert list(failed) == ["wrong on first, seed 0, lab"]
    assert "no measure 'nothing'" in failed["wrong on first, seed 0, lab"]
    assert seen == [(1, 2), (2, 2)]
    assert "random" in [one.preset for one in read_runs(lab.folder)]


def test_windows_are_weighted_by_their_losses_only_after_the_first_steps():
    reweigh = reweighing({"strategy": "upper", "temperature": 0.4, "from_step": 1})
    losses = np.array([1.0, 2.0, 3.0])
    assert reweigh is not None
    assert reweigh(losses).tolist() == [1 / 3] * 3
    later = reweigh(losses)
    assert later[2] > later[1] > later[0]
    assert reweighing(None) is None
    assert reweighing({"scorer": "presence"}) is None


def test_a_lab_refuses_a_pool_that_is_too_small(tmp_path: Path):
    with pytest.raises(UserError, match="tokens are left to choose from"):
        open_lab(small_pool(60), [small_target("a", "first")], {"lab": SMALL}, SETTINGS, tmp_path)
