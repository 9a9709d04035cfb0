"""Can the statistics of `membership` tell which benchmark items a model was trained on, and what do they cost?

    python benchmarks/membership.py [--data FOLDER] [--set arc_easy] [--items 60] [--tokens 400000]

A model of the demo's size is trained on English Wikipedia (the parent), then on more of it with benchmark items mixed
in: one group of items once, one twice, and so on; one never. Each statistic is printed as AUC of every group
against the unseen one (0.5 = it cannot tell), and so is the fall of the loss since the parent, which needs both
checkpoints and cancels how easy an item is. Then the rate of reading beside that of the plain loss on the same items.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import zstandard
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from winnow.contamination.membership import LOOKS_SEEN, compare, read_texts, statistics
from winnow.train.batches import pack
from winnow.train.evaluate import evaluate_loss
from winnow.train.loop import TrainSettings, train
from winnow.train.model import ModelConfig, build_model
from winnow.train.tokenizer import load_tokenizer, save_tokenizer, tokenise, train_tokenizer

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("WINNOW_TEST_DATA", ROOT / "../shared/data"))
REPEATS = (0, 1, 2, 4, 8, 16, 32)
SIZES = ModelConfig()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="folder with wiki_en and eval_targets")
    parser.add_argument("--set", default="arc_easy", help="a file of eval_targets")
    parser.add_argument("--items", type=int, default=60, help="items of each group")
    parser.add_argument(
        "--tokens", type=int, default=400_000, help="tokens of Wikipedia before the items, and with them"
    )
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    generator = np.random.default_rng(arguments.seed)
    articles = texts_of(arguments.data / "wiki_en/docs.jsonl.zst", 4_000)
    questions = texts_of(arguments.data / f"eval_targets/{arguments.set}.jsonl.zst", 100_000)
    chosen = [questions[at] for at in generator.permutation(len(questions))[: arguments.items * len(REPEATS)]]
    group = np.arange(len(chosen)) % len(REPEATS)
    tokenizer = tokenizer_of(articles)
    eos = int(tokenizer.eos_token_id)
    stream = tokenise(tokenizer, articles)
    items = [tokens[: SIZES.context] for tokens in tokenise(tokenizer, chosen)]

    half = np.searchsorted(np.cumsum([len(tokens) for tokens in stream]), [arguments.tokens, 2 * arguments.tokens])
    planted = [item for item, own in zip(items, group, strict=True) for _ in range(REPEATS[own])]
    mixed = [*stream[half[0] : half[1]], *planted]
    mixed = [mixed[at] for at in generator.permutation(len(mixed))]
    model = build_model(SIZES, arguments.seed, eos)
    first = train(model, pack(stream[: half[0]], SIZES.context, eos), TrainSettings(schedule="constant"))
    before, seconds = measured(model, items, chosen)
    settings = TrainSettings(schedule="constant", warmup_steps=0)
    second = train(model, pack(mixed, SIZES.context, eos), settings, first.optimizer_state)
    after, _ = measured(model, items, chosen)

    share = sum(map(len, planted)) / second.tokens
    print(f"{SIZES.parameters:,} parameters, {first.tokens:,} tokens of Wikipedia, then {second.tokens:,} with")
    print(
        f"{arguments.items} items of {arguments.set} in each group: {share:.0%} of these, {median(items)} tokens each\n"
    )
    print(f"{'AUC against unseen items':28}" + "".join(f"{times:>4} times" for times in REPEATS[1:]))
    values = {name: (after[name], sign) for name, sign in LOOKS_SEEN.items()}
    values["loss less the parent's"] = after["loss"] - before["loss"], -1
    for name, (numbers, sign) in values.items():
        row = []
        for own in range(1, len(REPEATS)):
            here = (group == own) | (group == 0)
            row.append(compare(numbers[here], group[here] == own, sign, 0).auc)
        print(f"{name:28}" + "".join(f"{auc:>10.2f}" for auc in row))
    tokens = sum(map(len, items))
    start = time.perf_counter()
    evaluate_loss(model, items, SIZES.context)
    plain = time.perf_counter() - start
    print(f"\nread: {tokens / seconds:,.0f} tokens/s, {seconds / plain:.2f} x the time of the plain loss")


def measured(model: PreTrainedModel, items: list[np.ndarray], texts: list[str]) -> tuple[dict[str, np.ndarray], float]:
    """Return each statistic of every item, and the seconds that reading took, the better of two."""
    taken = []
    for _ in range(2):
        start = time.perf_counter()
        readings = read_texts(model, items, SIZES.context)
        found = [statistics(reading, text, 20, 5, 5) for reading, text in zip(readings, texts, strict=True)]
        taken.append(time.perf_counter() - start)
    return {name: np.array([one[name] for one in found]) for name in LOOKS_SEEN}, min(taken)


def tokenizer_of(texts: list[str]) -> PreTrainedTokenizerBase:
    with tempfile.TemporaryDirectory() as folder:
        save_tokenizer(train_tokenizer(texts[:1_000], SIZES.vocab), Path(folder))
        return load_tokenizer(Path(folder))


def median(items: list[np.ndarray]) -> int:
    return int(np.median([len(item) for item in items]))


def texts_of(path: Path, count: int) -> list[str]:
    with path.open("rb") as raw:
        lines = io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(raw), encoding="utf-8")
        return [json.loads(line)["text"] for line, _ in zip(lines, range(count), strict=False)]


if __name__ == "__main__":
    main()
