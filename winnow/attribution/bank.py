"""The ground truth of attribution: what models trained on random subsets of the documents lose on the queries.

Subset m holds the ``alpha`` N documents whose tokens, hashed with the seed and m, come first: a document's place in
the list decides nothing. Each subset is trained with several seeds, so that the noise of training can be told from the
effect of the documents. A training is kept as soon as it is done, in a file of its own: a bank that was interrupted,
or that shall have more subsets or seeds, goes on where it is.

Source: Ilyas et al. 2022 (Datamodels), section 2; Park et al. 2023 (TRAK), section 4.1.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import xxhash

from winnow.attribution.batching import canonical_order
from winnow.attribution.retraining import Recipe, losses, retrain
from winnow.errors import UserError
from winnow.identity import canonical_json, digest

log = logging.getLogger(__name__)
VERSION = "1"
FACTS = "bank.json"


@dataclass(frozen=True)
class SubsetBank:
    """M subsets of N documents, trained with S seeds each, and their losses on Q queries.

    ``masks`` bool ``[M, N]``; ``losses`` float64 ``[M, S, Q]``, mean nats a token; ``queries``: the keys of the
    queries' tokens, see :meth:`columns`; ``digest``: see :func:`bank_digest`, the same however many subsets and seeds.
    """

    masks: np.ndarray
    losses: np.ndarray
    queries: tuple[str, ...]
    digest: str

    def take(self, subsets: np.ndarray) -> SubsetBank:
        """Return the bank of some subsets (int or bool), in that order."""
        return replace(self, masks=self.masks[subsets], losses=self.losses[subsets])

    def columns(self, queries: Sequence[np.ndarray]) -> np.ndarray:
        """Return int64: where the given queries (token arrays) are among the bank's.

        Raises :class:`UserError` for a query that the bank was not measured on.
        """
        place = {key: column for column, key in enumerate(self.queries)}
        try:
            return np.array([place[query_key(query)] for query in queries], dtype=np.int64)
        except KeyError as error:
            raise UserError(
                "the subset bank has no losses on one of the queries; ask for queries that it was measured on, "
                "or train a bank with them"
            ) from error


@dataclass(frozen=True)
class BankPlan:
    """What to train: ``subsets`` of a share ``alpha`` of the documents, drawn with ``seed``, each with ``seeds``."""

    subsets: int = 64
    alpha: float = 0.5
    seeds: tuple[int, ...] = (0, 1)
    seed: int = 0

    def validate(self) -> None:
        """Raise :class:`UserError` on a plan whose bank would say nothing."""
        if self.subsets < 4:
            raise UserError(f"bank of {self.subsets} subsets: too few to rank; train at least 4")
        if not 0 < self.alpha < 1:
            raise UserError(f"bank alpha = {self.alpha} is no share of the documents; set it between 0 and 1")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise UserError("bank seeds: give at least one, each once")


def query_key(tokens: np.ndarray) -> str:
    """Return what identifies a token array, as hexadecimal digits."""
    return xxhash.xxh3_128_hexdigest(np.asarray(tokens, dtype="<i8").tobytes())


def subset_mask(documents: Sequence[np.ndarray], plan: BankPlan, subset: int) -> np.ndarray:
    """Return bool ``[N]``: the documents of one subset; exactly ``round(alpha N)``, whatever their order."""
    mask = np.zeros(len(documents), dtype=np.bool_)
    order = canonical_order(documents, seed=(plan.seed << 32) + subset + 1)
    mask[order[: round(plan.alpha * len(documents))]] = True
    return mask


def bank_digest(documents: Sequence[np.ndarray], queries: Sequence[np.ndarray], recipe: Recipe, plan: BankPlan) -> str:
    """Return what a bank's trainings depend on; not how many subsets and seeds there are, nor any order."""
    facts = [VERSION, asdict(recipe), plan.alpha, plan.seed]
    return digest([*facts, sorted(map(query_key, documents)), sorted(map(query_key, queries))])


def train_bank(
    folder: Path,
    documents: Sequence[np.ndarray],
    queries: Sequence[np.ndarray],
    recipe: Recipe,
    plan: BankPlan,
    *,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> SubsetBank:
    """Train what the bank in ``folder`` lacks, and return the whole of it.

    ``workers`` processes train side by side (1: this one alone); their number changes no bit. ``progress`` is called
    with (trainings done, trainings in all). Raises :class:`UserError` when the folder holds the bank of other
    documents, queries or another recipe, or when more would be trained by another torch than that of the rest: its
    rounding is another, which would look like noise between seeds.
    """
    plan.validate()
    made = bank_digest(documents, queries, recipe, plan)
    wanted = [(subset, seed) for seed in plan.seeds for subset in range(plan.subsets)]
    missing = [one for one in wanted if not _part(folder, *one).exists()]
    _claim(folder, made, recipe, plan, bool(missing))
    masks = np.array([subset_mask(documents, plan, subset) for subset in range(plan.subsets)])
    job = _Job(folder, tuple(documents), tuple(queries), recipe)
    for done, (subset, seed) in enumerate(_trained(job, masks, missing, workers), len(wanted) - len(missing) + 1):
        log.info("subset %d, seed %d trained (%d of %d)", subset, seed, done, len(wanted))
        if progress is not None:
            progress(done, len(wanted))
    keys = tuple(map(query_key, queries))
    found = [[_read(_part(folder, subset, seed), keys) for seed in plan.seeds] for subset in range(plan.subsets)]
    return SubsetBank(masks, np.array(found), keys, made)


@dataclass(frozen=True)
class _Job:
    folder: Path
    documents: tuple[np.ndarray, ...]
    queries: tuple[np.ndarray, ...]
    recipe: Recipe

    def run(self, mask: np.ndarray, subset: int, seed: int) -> tuple[int, int]:
        chosen = [self.documents[index] for index in np.flatnonzero(mask)]
        for stop in retrain(self.recipe, chosen, seed):
            measured = losses(stop.model, self.queries, self.recipe.context)
            _write(_part(self.folder, subset, seed), tuple(map(query_key, self.queries)), measured)
        return subset, seed


def _trained(job: _Job, masks: np.ndarray, missing: list[tuple[int, int]], workers: int) -> Iterator[tuple[int, int]]:
    if workers <= 1 or len(missing) <= 1:
        for subset, seed in missing:
            yield job.run(masks[subset], subset, seed)
        return
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    # Spawned: a forked child of a process that has computed with threads may wait for them for ever.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(missing)), context, _take_job, (job,)) as pool:
        yield from pool.map(_run_job, *zip(*((masks[subset], subset, seed) for subset, seed in missing), strict=True))


_job: _Job | None = None


def _take_job(job: _Job) -> None:
    global _job
    _job = job


def _run_job(mask: np.ndarray, subset: int, seed: int) -> tuple[int, int]:
    if _job is None:
        raise RuntimeError("a worker of the bank was given no job")
    return _job.run(mask, subset, seed)


def _claim(folder: Path, made: str, recipe: Recipe, plan: BankPlan, training: bool) -> None:
    facts = {
        "digest": made,
        "recipe": asdict(recipe),
        "alpha": plan.alpha,
        "seed": plan.seed,
        "version": VERSION,
        "torch": version("torch"),
    }
    path = folder / FACTS
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
        if found.get("digest") != made:
            raise UserError(f"{folder}: holds the bank of other documents or another recipe; give another folder")
        if training and found.get("torch") != facts["torch"]:
            raise UserError(
                f"{folder}: a bank begun with torch {found.get('torch', 'of no record')}, and this is "
                f"{facts['torch']}; delete the folder, or go on with that torch"
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(canonical_json(facts) + "\n", encoding="utf-8")
    temporary.replace(path)


def _part(folder: Path, subset: int, seed: int) -> Path:
    return folder / f"subset-{subset:04d}-seed-{seed}.safetensors"


def _write(path: Path, keys: tuple[str, ...], measured: np.ndarray) -> None:
    from safetensors.numpy import save_file

    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    named = np.frombuffer(bytes.fromhex("".join(keys)), dtype=np.uint8).reshape(-1, 16)
    save_file({"losses": measured, "queries": named.copy()}, temporary)
    temporary.replace(path)


def _read(path: Path, keys: tuple[str, ...]) -> np.ndarray:
    """Return the losses float64 ``[Q]`` in the order of ``keys``: the queries may come in another order than before."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        tensors = load_file(path)
        found = {row.tobytes().hex(): loss for row, loss in zip(tensors["queries"], tensors["losses"], strict=True)}
        return np.array([found[key] for key in keys])
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        raise UserError(f"{path}: not the losses of a subset ({error}); delete it and run again") from error
