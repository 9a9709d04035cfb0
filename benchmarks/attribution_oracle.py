"""The one-step oracle: what a probe costs over its floor, and that it equals reloading the checkpoint and stepping.

    python benchmarks/attribution.py oracle [--documents 16] [--reference 4000] [--repeats 5] [--hidden 128]

The floor is what no probe can avoid: one training step on the document (forward, backward, clipping and torch's fused
AdamW) and one forward pass over the reference, on the same model, batches, attention kernel and threads.
Reload-and-step reads weights and optimiser state from safetensors, steps and measures, for every document. The
contenders take turns on each document, and a document's best time counts. float32; random tokens, weights and moments,
since only sizes matter. Peak memory is measured in processes of their own, over libraries, weights and moments loaded.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

BETAS = (0.9, 0.95)
STEPS = 100  # taken before the checkpoint


def add(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's options."""
    parser.add_argument("--documents", type=int, default=16)
    parser.add_argument("--reference", type=int, default=4000, help="tokens of the reference")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)


def run(options: argparse.Namespace) -> None:
    """Print the times, ratios, differences and memory."""
    import torch

    torch.set_num_threads(options.threads)
    world = World(options)
    world.probe(world.docs[0])
    with tempfile.TemporaryDirectory() as folder:
        contenders: dict[str, Callable[[np.ndarray], float]] = {
            "probe": world.probe,
            "step + reference forward": world.floor,
            "step alone": world.step_alone,
            "reload and step": world.reloading(Path(folder)),
        }
        times = {name: np.full((options.repeats, options.documents), np.inf) for name in contenders}
        found = {name: np.zeros(options.documents) for name in contenders}
        for repeat in range(options.repeats):
            for place, doc in enumerate(world.docs):
                for name, contender in contenders.items():
                    start = time.perf_counter()
                    found[name][place] = contender(doc)
                    times[name][repeat, place] = time.perf_counter() - start
    size = sum(value.numel() for value in world.model.parameters())
    print(f"{size:,} parameters, {options.documents} documents, {world.tokens} reference tokens; float32, eager")
    print(f"{options.threads} threads, seed {options.seed}; each document's best of {options.repeats}\n")
    floor = times["step + reference forward"].min(axis=0)
    for name, seconds in times.items():
        best = seconds.min(axis=0)
        print(f"{name:26}{best.mean() * 1e3:>10.2f} ms{best.sum() / floor.sum():>8.3f} of the floor")
    gap = np.abs(found["probe"] - found["reload and step"]).max()
    spread = found["probe"].std()
    print(f"\nprobe against reload and step: differ by {gap:.1e} nats at most (influences deviate by {spread:.1e})")
    step, probe = (_peak(kind, options) for kind in ("step", "probe"))
    print(f"peak memory: {step:.0f} MB training steps, {probe:.0f} MB probes, {probe / max(step, 1.0):.2f}x")


class World:
    """A model trained a few steps, with its AdamW state, documents and a reference."""

    def __init__(self, options: argparse.Namespace) -> None:
        import torch

        from winnow.attribution.adamw import AdamW, optimizer_state
        from winnow.train.model import ModelConfig, build_model

        generator = np.random.default_rng(options.seed)
        config = ModelConfig(hidden=options.hidden, layers=options.layers, intermediate=9 * options.hidden // 4)
        self.model = build_model(config, options.seed)
        self.model.set_attn_implementation("eager")
        self.model.eval()
        torch.manual_seed(options.seed)
        weights = dict(self.model.named_parameters())
        self.moments = {
            "exp_avg": {name: 1e-3 * torch.randn_like(value) for name, value in weights.items()},
            "exp_avg_sq": {name: 1e-5 * torch.rand_like(value) for name, value in weights.items()},
        }
        self.settings = AdamW(1e-3, BETAS)
        self.state = optimizer_state(STEPS, **self.moments)
        self.docs = [generator.integers(0, 2048, count) for count in generator.integers(40, 256, options.documents)]
        lengths = generator.integers(40, 256, options.reference // 148 + 1)
        self.reference = [generator.integers(0, 2048, count) for count in lengths]
        self.tokens = int(lengths.sum())
        self._twin = build_model(config, options.seed)
        self._twin.set_attn_implementation("eager")
        self._twin.load_state_dict(self.model.state_dict())
        self._twin.eval()
        self._optimizer = self._torch_optimizer(self._twin)
        self._torch = torch
        self._oracle: Any = None

    @property
    def oracle(self) -> Any:
        """The oracle, made when first asked for."""
        from winnow.attribution.oracle import OneStepOracle

        if self._oracle is None:
            self._oracle = OneStepOracle(self.model, self.reference, self.settings, self.state, reference_tokens=None)
        return self._oracle

    def probe(self, doc: np.ndarray) -> float:
        """Ours."""
        return float(self.oracle.probe([doc]).influence[0])

    def floor(self, doc: np.ndarray) -> float:
        """One training step and one forward pass over the reference; the model drifts, which costs no time."""
        self.step_alone(doc)
        return self._measure(self._twin)

    def step_alone(self, doc: np.ndarray) -> float:
        """One training step."""
        return self._step(self._twin, self._optimizer, doc)

    def reloading(self, folder: Path) -> Callable[[np.ndarray], float]:
        """Return the plain way, from files in ``folder``."""
        from safetensors.torch import load_file, save_file

        save_file({name: value.clone() for name, value in self.model.named_parameters()}, folder / "model.safetensors")
        moments = {
            f"{key}.{name}": value.contiguous()
            for key in ("exp_avg", "exp_avg_sq")
            for name, value in self.moments[key].items()
        }
        save_file(moments, folder / "optimizer.safetensors")
        from copy import deepcopy

        model = deepcopy(self.model)

        def contender(doc: np.ndarray) -> float:
            model.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
            optimizer, loaded = self._torch_optimizer(model), load_file(folder / "optimizer.safetensors")
            for name, value in model.named_parameters():
                optimizer.state[value] = {
                    "step": self._torch.tensor(float(STEPS)),
                    "exp_avg": loaded[f"exp_avg.{name}"],
                    "exp_avg_sq": loaded[f"exp_avg_sq.{name}"],
                }
            self._step(model, optimizer, doc)
            return float(self.oracle.reference_loss) - self._measure(model)

        return contender

    def _torch_optimizer(self, model: Any) -> Any:
        import torch

        values = list(model.parameters())
        groups = [
            {"params": [value for value in values if value.ndim >= 2], "weight_decay": self.settings.weight_decay},
            {"params": [value for value in values if value.ndim < 2], "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=self.settings.learning_rate, betas=BETAS, fused=True)

    def _step(self, model: Any, optimizer: Any, doc: np.ndarray) -> float:
        torch = self._torch
        ids = torch.from_numpy(doc[: model.config.max_position_embeddings])[None]
        logits = model(input_ids=ids[:, :-1], use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits[0], ids[0, 1:])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), self.settings.clip)
        optimizer.step()
        return float(loss.detach())

    def _measure(self, model: Any) -> float:
        from winnow.attribution.stepping import document_losses, in_batches

        batched = in_batches(self.reference, model.config.max_position_embeddings)
        return float(document_losses(model, batched, len(self.reference)).mean())


def _peak(kind: str, options: argparse.Namespace) -> float:
    """Return by how many MB the work raises a fresh process's peak."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return float(pool.apply(_work, (kind, options)))


def _work(kind: str, options: argparse.Namespace) -> float:
    import torch

    torch.set_num_threads(options.threads)
    world = World(options)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak counts from here (Linux)
    before = _high_water()
    for doc in world.docs:
        if kind == "probe":
            world.probe(doc)
        else:
            world.floor(doc)
    return _high_water() - before


def _high_water() -> float:
    """Return this process's peak of resident memory in MB."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024
