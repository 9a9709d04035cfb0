"""Influence models: how well each ranks unseen documents by the one-step oracle, by the number of probes.

    python benchmarks/attribution.py surrogates [--probes 200 1000 5000] [--methods ridge grams mlp:pairwise ...]

A small Llama is trained on real text from seven sources; at a checkpoint of it the oracle measures documents on
LAMBADA, with the run's own AdamW state. Influence models are fitted to n of them and ranked on 1,000 that none has
seen: Spearman's correlation, a mean over Llamas (seeds of initialisation and order of texts) and over draws of the
probed documents for each (one where all are probed), with a bootstrap interval over both and over held-out documents.
At a later checkpoint the first 200 are measured again, for models that start from the earlier one. Everything measured,
and every prediction, is kept in ``--folder``, so a run that is stopped goes on, and another method or number of probes
costs only itself. Nothing is tuned on the documents that are ranked.

Of what a method may also know: ``+loss`` and ``+hidden`` give it the document's loss and mean last hidden state at the
checkpoint, which cost a forward pass over every document to be scored.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from winnow.attribution.correlation import BOOTSTRAPS, spearman
from winnow.attribution.surrogates import make_surrogate
from winnow.attribution.surrogates.interface import Features
from winnow.attribution.surrogates.model import fit_influence_model
from winnow.embed.encoder import BUNDLED
from winnow.identity import doc_ids, ids_to_numpy

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("WINNOW_TEST_DATA", ROOT / "../shared/data"))
SOURCES = ("wiki_en", "books", "usenet", "web_gov", "forum_stackexchange", "dialogue", "code")
CHARACTERS = 250
VOCABULARY, HIDDEN, LAYERS, CONTEXT, WINDOWS = 1024, 64, 2, 64, 32
CHECKPOINTS = (300, 400)  # steps of 32 windows
REFERENCE_TOKENS = 600
AGAIN = 200
HELD = 1000
POOL = 6000
CHUNK = 500


METHODS = (
    "ridge",
    "grams",
    "trees",
    "trees:pairwise",
    "trees:lambda",
    "mlp",
    "mlp:pairwise",
    "mlp:lambda",
    "ridge+loss",
    "ridge+hidden",
    "grams+loss",
    "grams+hidden",
    "bag of words",
    "histogram boosting",
)
WARM = ("ridge", "grams", "trees", "mlp")


def add(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's options."""
    parser.add_argument("--probes", type=int, nargs="+", default=[200, 1000, 5000])
    parser.add_argument(
        "--methods", nargs="+", default=list(METHODS), help="NAME[:LOSS][+loss][+hidden], encoder, peers"
    )
    parser.add_argument("--seeds", type=int, default=3, help="Llamas")
    parser.add_argument("--draws", type=int, default=3, help="draws of the probed documents for each")
    parser.add_argument("--folder", type=Path, default=Path("surrogate-probes"))


def run(options: argparse.Namespace) -> None:
    """Measure the probes that are not in the folder, fit every method and print the tables."""
    data = Data(measured(options.folder, options.seeds), options.folder)
    seeds = range(options.seeds)
    gradient = [spearman(data.gradient[seed][data.held], data.truth(seed)) for seed in seeds]
    print(f"\nAdam's gradient influence of all parameters, measured: {np.mean(gradient):.3f}")
    print(f"Spearman with the one-step oracle on {HELD} unseen documents [95%], Llamas x draws, seconds to fit")
    for probes in options.probes:
        draws = options.draws if probes < POOL - HELD else 1
        for method in options.methods:
            found = {
                (seed, draw): data.predictions(method, probes, seed, draw) for seed in seeds for draw in range(draws)
            }
            value, low, high = data.judged([(seed, predicted) for (seed, _), (predicted, _) in found.items()])
            seconds = np.mean([taken for _, taken in found.values()])
            told = f"{value:.3f} [{low:.3f}, {high:.3f}]  {options.seeds} x {draws} {seconds:7.1f} s"
            print(f"{probes:6,}  {method:20} {told}", flush=True)
    print(f"\nthe next checkpoint: {AGAIN} probes, ranked on the same {HELD} documents measured anew")
    for method in options.methods:
        if method in WARM:
            data.next_checkpoint(method, min(1000, max(options.probes)), options.seeds)


class Data:
    """The probes as fitting wants them; the last ``HELD`` documents are never fitted to."""

    def __init__(self, probes: dict[str, Any], folder: Path) -> None:
        self.influence, self.gradient = probes["influence"], probes["gradient"][:, 0]
        self.loss, self.hidden = probes["loss"][:, 0], probes["hidden"][:, 0]
        self.names, self.texts, self.folder = probes["names"], probes["texts"], folder
        ids = ids_to_numpy(doc_ids(self.texts))
        self.features = Features(ids, probes["embeddings"], probes["signals"], self.texts)
        self.held = np.arange(POOL - HELD, POOL)

    def truth(self, seed: int, stage: int = 0) -> np.ndarray:
        """Return the oracle's influence of the held-out documents."""
        found: np.ndarray = self.influence[seed, stage, self.held]
        return found

    def judged(self, predicted: list[tuple[int, np.ndarray]], stage: int = 0) -> tuple[float, float, float]:
        """Return the mean Spearman of seeds' predictions and its interval, predictions and documents drawn again."""
        draw, values = np.random.default_rng(0), []
        for _ in range(BOOTSTRAPS):
            rows = draw.integers(0, HELD, HELD)
            drawn = [predicted[place] for place in draw.integers(0, len(predicted), len(predicted))]
            values.append(np.mean([spearman(one[rows], self.truth(seed, stage)[rows]) for seed, one in drawn]))
        low, high = np.quantile(values, [0.025, 0.975])
        value = np.mean([spearman(one, self.truth(seed, stage)) for seed, one in predicted])
        return float(value), float(low), float(high)

    def predictions(self, method: str, probes: int, seed: int, draw: int) -> tuple[np.ndarray, float]:
        """Return what a method fitted to one draw of probes predicts of the held-out documents, and its seconds."""
        name = method.replace(":", "-").replace("+", "-").replace(" ", "-")

        def make() -> np.ndarray:
            started = time.monotonic()
            predicted = self._predictions(method, probes, seed, draw)
            return np.append(predicted, time.monotonic() - started)

        found = _kept(self.folder / f"seed-{seed}" / f"{name}-{probes}-{draw}.npy", make)
        return found[:-1], float(found[-1])

    def _predictions(self, method: str, probes: int, seed: int, draw: int) -> np.ndarray:
        chosen = order_of(seed, draw)[:probes]
        if method == "bag of words":
            return self._bag_of_words(chosen, seed)
        if method == "histogram boosting":
            return self._histogram_boosting(chosen, seed)
        called, *more = method.split("+")
        name, _, loss = called.partition(":")
        features = self.features
        if more:
            known = {"loss": self.loss[seed][:, None], "hidden": self.hidden[seed]}
            signals = np.concatenate([features.signals, *(known[one] for one in more)], axis=1)
            features = replace(features, signals=signals)
        surrogate = make_surrogate(name, loss or "squared", seed=draw, encoder=BUNDLED, max_tokens=128)
        rows = np.array(sorted(chosen.tolist(), key=lambda row: features.ids[row].tobytes()))
        return surrogate.fit(features.take(rows), self.influence[seed, 0][rows]).predict(features.take(self.held))

    def next_checkpoint(self, method: str, probes: int, seeds: int) -> None:
        """Print how the former model, a fresh one and one that starts from the former rank at the second checkpoint."""
        told = [self._next(method, probes, seed) for seed in range(seeds)]
        for place, kind in enumerate((f"former, {probes} probes", "cold", "warm")):
            value, low, high = self.judged([(seed, told[seed][0][place]) for seed in range(seeds)], stage=1)
            print(f"{method:14} {kind:20} {value:.3f} [{low:.3f}, {high:.3f}]", flush=True)
        former, own = np.mean([alarm for _, alarm in told], axis=0)
        print(f"{method:14} alarm: former {former:.3f} on the new probes, warm {own:.3f}, both out of fold", flush=True)

    def _next(self, method: str, probes: int, seed: int) -> tuple[list[np.ndarray], tuple[float, float]]:
        order = order_of(seed, 0)

        def fit(stage: int, count: int, **more: Any) -> Any:
            part = self.features.take(order[:count])
            return fit_influence_model(
                part.ids, part.embeddings, part.signals, self.influence[seed, stage][order[:count]],
                surrogate=make_surrogate(method, seed=seed, max_tokens=128), signal_names=self.names, texts=part.texts,
                **more,
            )  # fmt: skip

        former = fit(0, probes)
        cold, warm = (fit(1, AGAIN, previous=former, warm=one) for one in (False, True))
        held = self.features.take(self.held)
        predicted = [model.predict(held.embeddings, held.signals, held.texts) for model in (former, cold, warm)]
        return predicted, (warm.former.spearman, warm.former.own)

    def _bag_of_words(self, chosen: np.ndarray, seed: int) -> np.ndarray:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import RidgeCV

        words = TfidfVectorizer(sublinear_tf=True, min_df=2, token_pattern=r"\w+|[^\w\s]", max_features=5000)
        seen = words.fit_transform([self.texts[row] for row in chosen]).toarray()
        fitted = RidgeCV(np.logspace(-2, 3, 16)).fit(seen, self.influence[seed, 0][chosen])
        found: np.ndarray = fitted.predict(words.transform([self.texts[row] for row in self.held]).toarray())
        return found

    def _histogram_boosting(self, chosen: np.ndarray, seed: int) -> np.ndarray:
        from sklearn.ensemble import HistGradientBoostingRegressor

        values = np.concatenate([self.features.embeddings, self.features.signals], axis=1)
        fitted = HistGradientBoostingRegressor(max_iter=300, learning_rate=0.05, early_stopping=True, random_state=seed)
        found: np.ndarray = fitted.fit(values[chosen], self.influence[seed, 0][chosen]).predict(values[self.held])
        return found


def measured(folder: Path, seeds: int) -> dict[str, Any]:
    """Return texts, embeddings, signals and, by seed, the oracle's influence float64 ``[seeds, 2, POOL]``.

    What ``folder`` holds is not measured again. At the second checkpoint only the last ``HELD`` documents and the first
    ``AGAIN`` of a seed's order are measured, the others are NaN.
    """
    from winnow.embed.encoder import encode, load_encoder
    from winnow.quality.signals import COLUMNS, compute_signals

    folder.mkdir(parents=True, exist_ok=True)
    texts, trained = split_texts()
    found = [_measured(folder / f"seed-{seed}", texts, trained, seed) for seed in range(seeds)]
    embeddings = _kept(folder / "embeddings.npy", lambda: encode(load_encoder(), texts))
    table = compute_signals(pa.array(texts))
    return {
        "texts": texts,
        "embeddings": embeddings,
        "signals": np.stack([table[name].cast(pa.float64()).to_numpy() for name in COLUMNS], axis=1),
        "names": tuple(COLUMNS),
        **{name: np.array([one[name] for one in found]) for name in found[0]},
    }


def _kept(path: Path, make: Callable[[], np.ndarray]) -> np.ndarray:
    """Return an array that is made once and then read from ``path``."""
    if not path.exists():
        temporary = path.with_suffix(".tmp.npy")
        np.save(temporary, make())
        temporary.replace(path)
    return np.load(path)


def split_texts() -> tuple[list[str], list[str]]:
    """Return the texts that are probed and those that models are trained on."""
    corpus = sorted({text for name in SOURCES for text in texts_of(name)})
    texts = [corpus[index] for index in np.random.default_rng(0).permutation(len(corpus))]
    return [text[:CHARACTERS] for text in texts[:POOL]], texts[POOL:]


def order_of(seed: int, draw: int) -> np.ndarray:
    """Return int64 ``[POOL - HELD]``: an order of the documents that may be probed, of which a draw takes the first."""
    return np.random.default_rng([seed, 1 + draw]).permutation(POOL - HELD)


def _measured(folder: Path, probed: list[str], trained: list[str], seed: int) -> dict[str, np.ndarray]:
    """Train one seed's model and return what the oracle and the model itself say of the documents."""
    folder.mkdir(exist_ok=True)
    needed = [np.arange(POOL), np.r_[order_of(seed, 0)[:AGAIN], POOL - HELD : POOL]]
    stops: Iterator[Stop] | None = None
    found: dict[str, list[np.ndarray]] = {"influence": [], "loss": [], "hidden": [], "gradient": []}
    for number, asked in enumerate(needed):
        stop: Stop | None = None

        def here(number: int = number) -> Stop:
            """Return the checkpoint; trained only if something of it is not measured yet."""
            nonlocal stops, stop
            if stop is None:
                stops = iterate_stops(probed, trained, seed) if stops is None else stops
                stop = next(one for one in stops if one.number == number)
            return stop

        values = np.full((2, POOL), np.nan)
        for start in range(0, len(asked), CHUNK):
            part = asked[start : start + CHUNK]

            def probes(here: Callable[[], Stop] = here, part: np.ndarray = part) -> np.ndarray:
                return here().oracle(part)

            values[:, part] = _kept(folder / f"oracle-{number}-{start}.npy", probes)
        found["influence"].append(values[0])
        found["loss"].append(values[1])
        if number == 0:
            found["hidden"].append(_kept(folder / "hidden.npy", lambda: here().hidden()))
            found["gradient"].append(_kept(folder / "gradient.npy", lambda: here().gradient()))
    return {name: np.array(values) for name, values in found.items()}


@dataclass
class Stop:
    """A checkpoint with its optimizer's state, and the tokens of the documents that are asked about."""

    number: int
    model: Any
    moments: dict[str, Any]
    learning_rate: float
    reference: list[np.ndarray]
    documents: list[np.ndarray]
    trained: list[np.ndarray]

    def oracle(self, places: np.ndarray) -> np.ndarray:
        """Return influence and loss of documents, float64 ``[2, n]``."""
        from winnow.attribution.adamw import AdamW
        from winnow.attribution.oracle import OneStepOracle

        started = time.monotonic()
        oracle = OneStepOracle(
            self.model, self.reference, AdamW(self.learning_rate), self.moments, reference_tokens=REFERENCE_TOKENS
        )
        found = oracle.probe([self.documents[place] for place in places])
        print(f"  {len(places)} probes, {time.monotonic() - started:.0f} s", flush=True)
        return np.array([found.influence, found.loss])

    def hidden(self) -> np.ndarray:
        """Return the model's last hidden states, a mean over tokens, float32 ``[POOL, HIDDEN]``."""
        import torch

        with torch.inference_mode():
            return np.array(
                [
                    self.model(torch.from_numpy(one[None, :CONTEXT].astype(np.int64)), output_hidden_states=True)
                    .hidden_states[-1][0]
                    .mean(dim=0)
                    .numpy()
                    for one in self.documents
                ]
            )

    def gradient(self) -> np.ndarray:
        """Return the gradient influence by Adam's metric on all parameters, float64 ``[POOL]``."""
        from winnow.attribution.influence import GradientInfluence

        fitted = GradientInfluence.fit(
            self.model, self.reference, self.trained, method="adam_dot", scope="all", optimizer_state=self.moments
        )
        return fitted.score(self.documents).influence


def iterate_stops(probed: list[str], trained: list[str], seed: int) -> Iterator[Stop]:
    """Train a model on one seed's order of the texts and yield its checkpoints."""
    from winnow.attribution.adamw import optimizer_state
    from winnow.train.batches import pack
    from winnow.train.loop import TrainSettings, train
    from winnow.train.model import ModelConfig, build_model
    from winnow.train.tokenizer import train_tokenizer

    texts = [trained[place] for place in np.random.default_rng([seed, 0]).permutation(len(trained))[:4000]]
    tokenizer = train_tokenizer([text[:4000] for text in trained[:4000]], VOCABULARY)
    eos = tokenizer.get_vocab()["<|endoftext|>"]

    def tokens(values: list[str]) -> list[np.ndarray]:
        return [np.array([*row.ids, eos], np.int32) for row in tokenizer.encode_batch(values)]

    steps = CHECKPOINTS[-1]
    read = tokens([text[:2000] for text in texts])
    windows = pack(read, CONTEXT, eos)[: WINDOWS * steps]
    reference = tokens([row["text"] for row in rows("eval_targets/lambada.jsonl.zst")][:100])
    model = build_model(ModelConfig(VOCABULARY, HIDDEN, LAYERS, 4, 160, CONTEXT), seed=seed, eos=eos)
    state, first = None, 0
    for number, last in enumerate(CHECKPOINTS):
        settings = TrainSettings(
            batch_windows=WINDOWS, schedule="constant", first_step=first, total_steps=steps, dtype="float32"
        )
        result = train(model, windows[WINDOWS * first : WINDOWS * last], settings, state)
        state, first = result.optimizer_state, last
        print(f"seed {seed}, step {last}: loss {np.mean(result.train_losses[-20:]):.3f}", flush=True)
        moments = optimizer_state(state.step, state.exp_avg, state.exp_avg_sq)
        yield Stop(number, model, moments, settings.lr, reference, tokens(probed), read[:256])


def texts_of(name: str) -> list[str]:
    files = sorted((DATA / name).glob("*.jsonl.zst"))
    return [row["text"] for file in files if "pairs" not in file.name for row in rows(file) if len(row["text"]) > 200]


def rows(path: str | Path) -> list[dict[str, Any]]:
    import zstandard

    with (DATA / path).open("rb") as raw, zstandard.ZstdDecompressor(max_window_size=2**27).stream_reader(raw) as file:
        return [json.loads(line) for line in io.TextIOWrapper(file, encoding="utf-8")]
