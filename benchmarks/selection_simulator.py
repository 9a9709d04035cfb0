"""Selection policies on worlds where every document's influence is known.

    python benchmarks/selection_simulator.py [TOPIC ...] [--seeds 200] [--figures FOLDER]

Shares are of the mass that the best arms have (the arms' oracle: it knows every arm's true mean and fills the same
budget of 20% of the pool, documents inside an arm being equal); random selection has share 0. "of best docs" is the
share of the mass of the single best documents. All policies grant at the end, by what they then hold the arms' values
to be, unless it says blocks. Intervals are 95% over seeds. "to 95%" is the least share of the pool to be probed from
which on the mean share stays at 0.95 or more.

worlds   policies at equal probes: 5% and 10% of the pool; knowledge_gradient also when it stops by itself
quad     Quad's released constants (alpha 0.0001 on raw rewards, tau 0.002, 10 probes a pull, a third of a cluster a
         block, every arm at first unknown), with tau where the budget's true cut is: the best case; and beside it
drift    regret over stages while the arms' means drift; every row has 15% of the pool to probe in all
scores   a bandit with an influence model: shares of the best documents' mass when documents are taken by the model
         alone, inside the arms that the bandit chose, and ranked by both
replay   the policies on a measurement of your own, --file: an .npz with arm_of, tokens, rewards, arms, and centroids
speed    seeds a second; and rounds a second of one run with 10,000 arms
peer     mabwiser's policies (pip install mabwiser) on the first world, pull by pull
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from winnow.selection import BanditSettings, build_arms, opening_probes, run_bandit
from winnow.selection.boundary import filled
from winnow.selection.options import Value
from winnow.selection.simulate import Planted, Replay, Simulated, simulate, simulate_stages
from winnow.selection.simulate.judging import Judge

NOISY = Planted(between=0.447, within=0.894)
WORLDS = {
    "even": (Planted(), "100 arms of 100 documents, half of the variance between arms"),
    "noisy": (NOISY, "a fifth of the variance between arms"),
    "noisy, large arms": (replace(NOISY, documents=400), "the same, 400 documents an arm"),
    "unequal": (Planted(size_spread=1.0, noise_spread=0.7), "sizes and noise differ by factors between arms"),
    "heavy tails": (Planted(tail=3.0), "Student's noise, 3 degrees of freedom"),
    "centroids tell": (replace(NOISY, explained=0.8), "noisy; 80% between arms linear in the centroids"),
    "centroids mislead": (replace(NOISY, explained=0.8, shape="curved"), "noisy; linear in their squares"),
    "many arms": (Planted(arms=1000, documents=40), "1,000 arms of 40 documents"),
}
ALL: dict[str, tuple[str, dict[str, Value]]] = {
    "round_robin": ("round_robin", {}),
    "uniform": ("uniform", {}),
    "greedy": ("greedy", {}),
    "epsilon_greedy": ("epsilon_greedy", {}),
    "quad_ucb 0.1": ("quad_ucb", {"alpha": 0.1}),
    "quad_ucb 0.5 (UCB1)": ("quad_ucb", {"alpha": 0.5}),
    "cluster_ucb": ("cluster_ucb", {}),
    "ucb_v": ("ucb_v", {}),
    "discounted_ucb": ("discounted_ucb", {}),
    "sliding_window_ucb": ("sliding_window_ucb", {"window": 1000}),
    "thompson": ("thompson", {}),
    "thompson_variance": ("thompson_variance", {}),
    "... aim budget": ("thompson_variance", {"aim": "budget", "tolerance": 0.0}),
    "lin_ucb": ("lin_ucb", {}),
    "deup": ("deup", {}),
    "exp3": ("exp3", {}),
    "successive_halving": ("successive_halving", {}),
    "knowledge_gradient": ("knowledge_gradient", {"tolerance": 0.0}),
    "... stops by itself": ("knowledge_gradient", {}),
}
SOME = (
    "round_robin", "quad_ucb 0.5 (UCB1)", "ucb_v", "... aim budget", "lin_ucb", "successive_halving",
    "knowledge_gradient", "... stops by itself",
)  # fmt: skip
HEADER = f"{'':22}{'at 5%':>16}{'at 10%':>16}{'to 95%':>8}{'probed':>9}{'share':>16}{'of best docs':>14}{'s':>6}"
OPENING = 2
GRID = [share / 100 for share in range(1, 61)]


def main() -> None:
    """Run the topics asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("topics", nargs="*", default=["worlds", "quad", "drift", "scores", "speed"])
    parser.add_argument("--seeds", type=int, default=200, help="fewer where a pool is large: as many documents in all")
    parser.add_argument("--file", type=Path, help="the measurement to replay")
    parser.add_argument("--figures", type=Path, help="a folder for the curves as PNG")
    options = parser.parse_args()
    if options.figures:
        options.figures.mkdir(parents=True, exist_ok=True)
    topics = {"worlds": worlds, "quad": quad, "scores": scores, "drift": drift, "speed": speed, "peer": peer}
    for topic in options.topics:
        if topic == "replay":
            replay(options.seeds, options.file)
        else:
            topics[topic](options.seeds, options.figures)


def worlds(seeds: int, figures: Path | None) -> None:
    """Print shares by world and policy."""
    for number, (name, (world, words)) in enumerate(WORLDS.items()):
        pool, count = _scale(world, seeds)
        print(f"\n{name}: {words}; {count} seeds, {pool:,} documents, opening {OPENING} an arm")
        print(HEADER)
        lines = {}
        for row in ALL if number == 0 else SOME:
            policy, given = ALL[row]
            settings = _settings(world, policy, given, 0.2)
            start = time.perf_counter()
            found = simulate(world, settings, range(count), opening=OPENING)
            _row(row, found, time.perf_counter() - start)
            if row in ("knowledge_gradient", "... aim budget", "quad_ucb 0.5 (UCB1)", "round_robin"):
                lines[policy] = _curve(found, 0.2)
        if figures:
            _draw(figures / f"simulator_{name.replace(',', '').replace(' ', '_')}.png", lines)


def scores(seeds: int, figures: Path | None) -> None:
    """Print what a predictor of documents adds to the bandit, and the bandit to the predictor."""
    count = max(20, seeds // 2)
    print(f"\nscores: knowledge_gradient to 5% and 10% of the pool, budget 20%; {count} seeds; shares of best docs")
    print(f"{'':8}{'correlation':>12}{'':>14}{'score':>16}{'bandit, 5%':>16}{'ranked, 5%':>16}{'ranked, 10%':>16}")
    print(f"{'':8}{'inside arms':>12}{'between arms':>14}{'alone':>16}")
    for name, world in (("even", Planted()), ("noisy", NOISY)):
        for inside, between in ((0.3, 0.0), (0.3, 0.5), (0.3, 0.9), (0.6, 0.0), (0.6, 0.5), (0.6, 0.9)):
            told = replace(world, prediction=inside, arm_prediction=between)
            ground = told.draw(np.arange(count))
            judge, budget = Judge.of(ground), np.full(count, ground.tokens.shape[1] // 5)
            assert ground.scores is not None
            alone = (filled(ground.scores, ground.tokens, budget) * judge.rewards).sum(axis=1)
            few, many = (
                simulate(
                    told, _settings(told, "knowledge_gradient", {"tolerance": 0.0}, part), range(count), opening=OPENING
                )
                for part in (0.05, 0.1)
            )
            print(
                f"{name:8}{inside:>12}{between:>14}{_interval(alone / judge.best_documents(budget)):>16}"
                f"{_interval(few.share_documents):>16}{_interval(few.share_ranked):>16}{_interval(many.share_ranked):>16}",
                flush=True,
            )


def replay(seeds: int, file: Path) -> None:
    """Print shares by policy on a measurement of every document."""
    with np.load(file) as stored:
        measured = {name: stored[name] for name in stored.files}
    rewards, tokens = measured["rewards"], measured["tokens"]
    scale = 1 / rewards.std()
    world = Replay(
        measured["arm_of"], tokens, scale * (rewards - rewards.mean()), int(measured["arms"]), measured.get("centroids")
    )
    pool, budget = len(rewards), int(tokens.sum()) // 100
    counts = np.bincount(world.arm_of, minlength=world.arms)
    means = np.bincount(world.arm_of, world.rewards, minlength=world.arms) / np.maximum(counts, 1)
    between = means[world.arm_of].var() / world.rewards.var()
    print(
        f"\n{file.name}: {pool:,} documents, {world.arms} arms; {between:.0%} of variance between arms; {seeds} seeds"
    )
    print(HEADER)
    for row in SOME:
        policy, given = ALL[row]
        settings = BanditSettings(
            block_tokens=budget, max_probes=pool // 5, policy=policy, policy_options=given, grants="final",
            arms_per_round=max(8, world.arms // 25), probes_per_pull=4,
        )  # fmt: skip
        start = time.perf_counter()
        found = simulate(world, settings, range(seeds), opening=OPENING)
        _row(row, found, time.perf_counter() - start)


def quad(seeds: int, figures: Path | None) -> None:
    """Print Quad's constants beside the knowledge gradient."""
    print("\nQuad's released constants, tau at the true cut; shares at 5% ... are read out as if it granted at the end")
    print(f"{'':58}{'at 5%':>16}{'at 10%':>16}{'at 20%':>16}{'to 95%':>8}{'grants':>16}{'probed':>8}")
    for name, world in (
        ("even", Planted()),
        ("even, 400 documents an arm", Planted(documents=400)),
        ("noisy", NOISY),
        ("unequal", WORLDS["unequal"][0]),
    ):
        pool, count = _scale(world, seeds // 2)
        lines = {}
        for label, part in (("a third", 1 / 3), ("a tenth", 0.1)):
            settings = BanditSettings(
                block_tokens=max(1, round(world.documents * part)), max_probes=int(0.6 * pool), policy="quad_ucb",
                policy_options={"raw": True}, accept_threshold=2e-3, probes_per_pull=10,
                arms_per_round=max(1, world.arms // 200),
            )  # fmt: skip
            raw = replace(world, unit=2e-3 / (0.8416 * world.between))
            found = simulate(raw, settings, range(count), opening=0)
            lines[f"Quad, {label} a block"] = _curve(found, 0.3)
            _quad_row(f"{name}: Quad's constants, {label} of a cluster a block", found, pool)
        settings = _settings(world, "knowledge_gradient", {"tolerance": 0.0}, 0.2)
        found = simulate(world, settings, range(count), opening=OPENING)
        lines["knowledge gradient"] = _curve(found, 0.3)
        _quad_row(f"{name}: knowledge_gradient", found, pool)
        if figures:
            _draw(figures / f"simulator_quad_{name.replace(',', '').replace(' ', '_')}.png", lines)


def drift(seeds: int, figures: Path | None) -> None:
    """Print regret by policy in drifting worlds."""
    rows: list[tuple[str, str, dict[str, Value], str, str, float, int]] = [
        ("plain UCB, UCB1's alpha, blocks", "quad_ucb", {"alpha": 0.5}, "blocks", "keep", 1, 5),
        ("plain UCB, alpha 0.1, blocks", "quad_ucb", {"alpha": 0.1}, "blocks", "keep", 1, 5),
        ("plain UCB, alpha 0.1, large blocks", "quad_ucb", {"alpha": 0.1}, "blocks", "keep", 1, 25),
        ("UCB1, grants at the end", "quad_ucb", {"alpha": 0.5}, "final", "keep", 1, 5),
        ("discounted_ucb 0.9, at the end", "discounted_ucb", {"gamma": 0.9}, "final", "keep", 1, 5),
        ("sliding_window_ucb 12, at the end", "sliding_window_ucb", {"window": 12}, "final", "keep", 1, 5),
        ("thompson 0.9, at the end", "thompson", {"discount": 0.9}, "final", "keep", 1, 5),
        ("... variance, aged 0.8", "thompson_variance", {"aim": "budget", "tolerance": 0.0}, "final", "prior", 0.8, 5),
        ("knowledge_gradient, keeps all", "knowledge_gradient", {"tolerance": 0.0}, "final", "keep", 1, 5),
        ("knowledge_gradient, aged 0.9", "knowledge_gradient", {"tolerance": 0.0}, "final", "prior", 0.9, 5),
        ("knowledge_gradient, aged 0.8", "knowledge_gradient", {"tolerance": 0.0}, "final", "prior", 0.8, 5),
    ]
    for stages in (5, 10):
        for name, world in (
            ("no drift", Planted(stages=stages)),
            ("10% anew a stage", Planted(stages=stages, speed=0.1)),
            ("30% anew a stage", Planted(stages=stages, speed=0.3)),
            ("half the arms switch once", Planted(stages=stages, speed=0.5, drift="switch")),
        ):
            count = max(20, seeds // 2)
            print(
                f"\n{stages} stages of {20 / stages:.0f}% of the pool, {name}; {count} seeds; regret a token and stage"
            )
            print(f"{'':36}{'regret':>18}{'/ plain':>9}{'share':>8}{'probed':>8}")
            plain, lines = 0.0, {}
            for label, policy, given, grants, carry, remember, block in rows:
                settings = BanditSettings(
                    block_tokens=block, max_probes=1500, policy=policy, policy_options=given, grants=grants,
                    arms_per_round=8, probes_per_pull=4,
                )  # fmt: skip
                found = simulate_stages(world, settings, range(count), carry=carry, remember=remember)
                plain = plain or found.regret.mean()
                print(
                    f"{label:36}{_interval(found.regret.mean(axis=1)):>18}{found.regret.mean() / plain:>9.2f}"
                    f"{found.share.mean():>8.3f}{found.probes.sum(axis=1).mean() / 10_000:>8.1%}",
                    flush=True,
                )
                if label.endswith(("UCB1's alpha, blocks", "UCB1, grants at the end", "0.9, at the end", "aged 0.8")):
                    lines[label] = (list(range(1, stages + 1)), found.regret.mean(axis=0).tolist())
            if figures:
                from winnow.plots import curves

                picture = curves(lines, "stage", "regret a token")
                (figures / f"simulator_drift_{stages}_{name.replace(' ', '_').replace('%', '')}.png").write_bytes(
                    picture
                )


def speed(seeds: int, figures: Path | None) -> None:
    """Print seeds a second, and the time of a run with many arms."""
    print(f"\nspeed: the even world, 10% probed, opening 2; {seeds} seeds at once")
    for policy in ("quad_ucb", "thompson_variance", "knowledge_gradient"):
        start = time.perf_counter()
        simulate(Planted(), _settings(Planted(), policy, {}, 0.1), range(seeds), opening=2)
        seconds = time.perf_counter() - start
        print(f"{policy:22}{seeds / seconds:>8.0f} seeds a second")
    arms_count, size, rounds = 10_000, 20, 500
    rng = np.random.default_rng(0)
    clusters = np.repeat(np.arange(arms_count), size)
    ids = rng.integers(0, 256, (len(clusters), 16), dtype=np.uint8)
    arms = build_arms(ids, clusters, np.full(len(clusters), 100))
    rewards = 0.7 * rng.normal(size=arms_count)[clusters] + 0.7 * rng.normal(size=len(clusters))
    opening = opening_probes(arms, 2, 0)
    print(f"one run, {arms_count:,} arms of {size} documents, {rounds} rounds of 16 pulls of 4 probes")
    for policy in ("quad_ucb", "thompson_variance", "knowledge_gradient"):
        settings = BanditSettings(
            block_tokens=500, max_probes=len(opening) + rounds * 64, policy=policy, grants="final", arms_per_round=16,
            probes_per_pull=4, policy_options={} if policy == "quad_ucb" else {"tolerance": 0.0},
        )  # fmt: skip
        start = time.perf_counter()
        run_bandit(arms, opening, rewards[opening], lambda at: rewards[at], arms.pool_tokens // 5, settings)
        print(f"{policy:22}{time.perf_counter() - start:>8.1f} s")


def peer(seeds: int, figures: Path | None) -> None:
    """Print mabwiser's policies on the even world."""
    try:
        from mabwiser.mab import MAB, LearningPolicy
    except ImportError:
        print("\nmabwiser is not installed: pip install mabwiser")
        return
    world, count = Planted(), min(seeds, 20)
    ground = world.draw(np.arange(count))
    policies = {
        "mabwiser UCB1 0.5": LearningPolicy.UCB1(alpha=0.5),
        "mabwiser EpsilonGreedy": LearningPolicy.EpsilonGreedy(epsilon=0.1),
        "mabwiser Thompson": LearningPolicy.ThompsonSampling(binarizer=lambda arm, reward: int(reward > 0)),
        "mabwiser Softmax": LearningPolicy.Softmax(tau=1),
    }
    print(f"\npeer: the even world, opening 3 an arm, then pulls of 4 probes to 10%, {count} seeds")
    for name, learning in policies.items():
        granted = np.zeros((count, world.arms), dtype=np.int64)
        start = time.perf_counter()
        for run in range(count):
            rewards = ground.rewards[run, 0].reshape(world.arms, world.documents)
            used = np.full(world.arms, 3)
            bandit = MAB(list(range(world.arms)), learning, seed=run)
            bandit.fit(np.repeat(np.arange(world.arms), 3), rewards[:, :3].reshape(-1))
            while used.sum() + 4 <= 1000:
                arm = bandit.predict()
                if used[arm] + 4 > world.documents:
                    break  # it has no notion of an arm that is used up
                bandit.partial_fit([arm] * 4, rewards[arm, used[arm] : used[arm] + 4])
                used[arm] += 4
            means = np.array([rewards[arm, : used[arm]].mean() for arm in range(world.arms)])
            granted[run, np.argsort(-means)[:20]] = 100
        seconds = time.perf_counter() - start
        judge = Judge.of(ground)
        share = judge.mass(granted) / judge.mass(judge.best_arms(np.full(count, 2000)))
        print(f"{name:24}{_interval(share):>16}{count / seconds:>8.1f} seeds a second")
    for row in ("quad_ucb 0.5 (UCB1)", "knowledge_gradient"):
        start = time.perf_counter()
        found = simulate(world, _settings(world, *ALL[row], 0.1), range(count), opening=3)
        print(f"{row:24}{_interval(found.share):>16}{count / (time.perf_counter() - start):>8.1f} seeds a second")


def _settings(world: Planted, policy: str, given: dict[str, Value], share: float) -> BanditSettings:
    pool = int(world.sizes().sum())
    return BanditSettings(
        block_tokens=pool // 100, max_probes=int(share * pool), policy=policy, policy_options=given, grants="final",
        arms_per_round=max(8, world.arms // 25), probes_per_pull=4,
    )  # fmt: skip


def _scale(world: Planted, seeds: int) -> tuple[int, int]:
    pool = int(world.sizes().sum())
    return pool, max(10, min(seeds, seeds * 10_000 // pool))


def _interval(values: np.ndarray) -> str:
    return f"{values.mean():.3f} ± {1.96 * values.std(ddof=1) / np.sqrt(len(values)):.3f}"


def _reached(found: Simulated) -> str:
    most = found.curve_probes.max() / found.pool
    probes = found.probes_to(0.95, [int(share * found.pool) for share in GRID if share <= most + 0.01])
    return "never" if probes is None else f"{probes / found.pool:.0%}"


def _row(label: str, found: Simulated, seconds: float) -> None:
    pool = found.pool
    print(
        f"{label:22}{_interval(found.share_at(pool // 20)):>16}{_interval(found.share_at(pool // 10)):>16}"
        f"{_reached(found):>8}{found.probes.mean() / pool:>9.1%}{_interval(found.share):>16}"
        f"{found.share_documents.mean():>14.3f}{seconds:>6.1f}",
        flush=True,
    )


def _quad_row(label: str, found: Simulated, pool: int) -> None:
    cells = "".join(f"{_interval(found.share_at(int(part * pool))):>16}" for part in (0.05, 0.1, 0.2))
    print(
        f"{label:58}{cells}{_reached(found):>8}{_interval(found.share):>16}{found.probes.mean() / pool:>8.1%}",
        flush=True,
    )


def _curve(found: Simulated, upto: float) -> tuple[list[float], list[float]]:
    shares = [share for share in np.arange(0.01, upto + 1e-9, 0.01) if found.share_at(int(share * found.pool)).any()]
    return [100 * share for share in shares], [
        float(found.share_at(int(share * found.pool)).mean()) for share in shares
    ]


def _draw(path: Path, lines: dict[str, tuple[list[float], list[float]]]) -> None:
    from winnow.plots import curves

    path.write_bytes(curves(lines, "% of the pool probed", "share of the best arms' mass"))


if __name__ == "__main__":
    main()
