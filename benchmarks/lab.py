"""Do selections pay? One model a preset, reference and seed, from one checkpoint and on as many tokens, compared.

    python benchmarks/lab.py [--presets random,dsir,...] [--references lambada,arc,rust] [--seeds 3] [--tokens 1M]
    python benchmarks/lab.py --others         the other presets and the ablations, one seed, on lambada
    python benchmarks/lab.py --report         only the tables, of the runs that are there

Pool: pieces of up to 1,500 characters of wiki_en, usenet, web_gov, books, code, dialogue and SMS spam, a fifth of it
planted near-duplicates and damaged documents. References: lambada; arc_easy and openbookqa; the Rust book by chapter,
both editions together; each in a selecting and a judging part that share nothing with each other or the pool. Reads
WINNOW_TEST_DATA. Runs are kept in --folder as they are done: stop it whenever, the same command goes on.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from lab_data import build

from winnow.errors import UserError
from winnow.lab.compare import collective_outliers, compare_choices, compare_models, near_groups
from winnow.lab.kept import RunResult
from winnow.lab.laws import fit_ladder, fit_loss_to_loss
from winnow.lab.pool import facts
from winnow.lab.ranking import rank_agreement
from winnow.lab.runs import Lab, LabSettings, Request, open_lab, run_all
from winnow.lab.speed import BASELINE, grouped, project, speeds
from winnow.lab.tables import (
    choices_table,
    curve_plot,
    differences_table,
    outliers_table,
    projection_table,
    ranking_text,
    speed_table,
)
from winnow.presets import load_preset, preset_names
from winnow.train.model import ModelConfig

CORE = ("random", "stratified", "dsir", "top_k_influence", "quad", "mates", "default")
VOCABULARY, CONTEXT = 2048, 128
MODELS = {
    "lab": ModelConfig(vocab=VOCABULARY, context=CONTEXT),
    "small": ModelConfig(vocab=VOCABULARY, hidden=64, layers=3, heads=2, intermediate=144, context=CONTEXT),
}
SIZES = ((410e6, 8.2e9), (1e9, 20e9))
JUDGING_TOKENS = 16_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", default=",".join(CORE))
    parser.add_argument("--others", action="store_true", help="all presets but the core ones, on lambada, one seed")
    parser.add_argument("--references", default="lambada,arc,rust")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=1_000_000)
    parser.add_argument("--models", default="lab", help=f"of {', '.join(MODELS)}; two of them are ranked")
    parser.add_argument("--characters", type=int, default=6_000_000, help="of each source, at most")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=Path("data/lab"))
    parser.add_argument("--report", action="store_true", help="train nothing")
    options = parser.parse_args()

    lab = opened(options)
    print(f"{facts(lab.pool)}\n")
    for target in lab.targets.values():
        print(f"{target.name}: {len(target.selecting):,} selecting, {len(target.judging):,} judging items "
              f"({sum(map(len, target.judging_tokens)):,} tokens), removed {target.removed}")  # fmt: skip
    results, failed = made(lab, requests_of(options), options)
    report(lab, results, options.folder)
    for name, why in failed.items():
        print(f"not made: {name}: {why}")


def opened(options: argparse.Namespace) -> Lab:
    """Build or read the pool, and open the lab."""
    started = time.perf_counter()
    pool, targets, eos = build(options.folder, options.characters, VOCABULARY, CONTEXT, JUDGING_TOKENS)
    wanted = options.models.split(",")
    settings = LabSettings(tokens=options.tokens)
    lab = open_lab(pool, targets, {name: MODELS[name] for name in wanted}, settings, options.folder, eos)
    print(f"pool and references: {time.perf_counter() - started:.0f} s")
    return lab


def requests_of(options: argparse.Namespace) -> list[Request]:
    """Return the runs asked for, seed by seed, so that an early stop leaves whole comparisons."""
    names, references, seeds = options.presets.split(","), options.references.split(","), options.seeds
    if options.others:
        names, references, seeds = [BASELINE, *sorted(set(preset_names()) - set(CORE))], ["lambada"], 1
    return [
        Request(load_preset(name), reference, seed, model)
        for model in options.models.split(",")
        for seed in range(seeds)
        for reference in references
        for name in names
    ]


def made(lab: Lab, requests: Sequence[Request], options: argparse.Namespace) -> tuple[list[RunResult], dict[str, str]]:
    """Make or read the runs, with a line for each that is done."""
    if options.report:
        present = [
            one for one in requests if (lab.folder / "runs" / lab.key(one, lab.warm(one.model).digest)[:24]).is_dir()
        ]
        return run_all(lab, present)
    started = time.perf_counter()

    def tell(done: int, total: int, request: Request, result: RunResult | str) -> None:
        said = result if isinstance(result, str) else f"loss {result.loss:.4f}"
        name = f"{request.preset.name} on {request.target}, seed {request.seed}, {request.model}"
        print(
            f"{done}/{total} after {time.perf_counter() - started:.0f} s: {name}: {said}", file=sys.stderr, flush=True
        )

    return run_all(lab, requests, options.workers, tell)


def report(lab: Lab, runs: Sequence[RunResult], folder: Path) -> None:
    """Print every table that these runs allow, and draw the curves."""
    rows = speeds(runs)
    print(f"\n{speed_table(rows)}\n")
    print(projection_table(project([run for run in runs if run.model == "lab"], SIZES)) + "\n")
    groups = grouped(run for run in runs if run.model == "lab")
    near = near_groups(lab.pool)
    first = {(preset, target): group[0] for (preset, target, _), group in groups.items()}
    chosen = [
        compare_choices(lab.pool, run, first[BASELINE, target])
        for (preset, target), run in first.items()
        if preset != BASELINE and (BASELINE, target) in first
    ]
    print(choices_table(chosen) + "\n")
    differences = [
        one
        for (preset, target, model), group in groups.items()
        if preset != BASELINE and (BASELINE, target, model) in groups
        for one in compare_models(group, groups[BASELINE, target, model])
    ]
    print(differences_table(differences) + "\n")
    outliers = [(f"{preset} on {target}", one) for (preset, target), run in first.items()
                for one in collective_outliers(lab.pool, run.positions, near) if one.collective]  # fmt: skip
    print(outliers_table(outliers) + "\n")
    laws(lab, runs)
    for target in sorted({run.target for run in runs}):
        (folder / f"curves-{target}.png").write_bytes(curve_plot(runs, target, "lab"))


def laws(lab: Lab, runs: Sequence[RunResult]) -> None:
    """Print ranks at two sizes, the ladder of each preset, and its losses against random's."""
    models = sorted({run.model for run in runs})
    for target in sorted({run.target for run in runs}):
        if len(models) > 1:
            try:
                print(ranking_text(rank_agreement(runs, target, (models[0], models[1]))) + "\n")
            except UserError as error:
                print(error)
    groups = grouped(runs)
    for preset, target in sorted({(preset, target) for preset, target, _ in groups}):
        own = [run for run in runs if (run.preset, run.target) == (preset, target)]
        try:
            ladder = fit_ladder(own, first_tokens=100_000, warm_tokens=lab.settings.warm_tokens)
        except UserError as error:
            print(f"{preset} on {target}: no ladder, {error}")
            continue
        size = 4e6 if ladder.sizes > 1 else 0.0
        loss, low, high = ladder.predict(size, 4e6)
        at = "4M parameters and tokens" if size else "4M tokens at the lab's size"
        print(
            f"{preset} on {target}: ladder (error {ladder.error:.2%}) extrapolates to "
            f"{loss:.3f} [{low:.3f}, {high:.3f}] at {at}"
        )
        base = groups.get((BASELINE, target, "lab"))
        if preset != BASELINE and base:
            mine = groups[preset, target, "lab"]
            law = fit_loss_to_loss([(a.losses, b.losses) for a, b in zip(base, mine, strict=False)])
            ahead, low, high = law.predict(base[0].loss - 0.3)
            print(f"  when random is 0.3 lower than at its end, the law from its losses has this at {ahead:.3f} "
                  f"[{low:.3f}, {high:.3f}] (error {law.error:.2%})")  # fmt: skip


if __name__ == "__main__":
    main()
