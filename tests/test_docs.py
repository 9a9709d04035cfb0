"""What the pages say exists: commands parse, links resolve, SQL binds, names are known, examples run."""

from __future__ import annotations

import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import duckdb
import numpy as np
import pytest

from winnow.cli import parser
from winnow.config import Config, Location, Source, validate_config
from winnow.config import Store as StoreSettings
from winnow.home import Home
from winnow.quality.judge import thresholds
from winnow.store.published import open_published
from winnow.store.schema import tables
from winnow.store.store import Store

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
STAGE_PAGES = sorted({table.stage for table in tables().values()} - {"bookkeeping"})
FENCE = re.compile(r"^```(\w*)(?: title=(\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FOLDERS = ("winnow", "assets", "sensors", "resources", "docs", "tests", "benchmarks")


def fences(page: Path, language: str) -> list[str]:
    return [body for kind, _, body in FENCE.findall(page.read_text(encoding="utf-8")) if kind == language]


def inline(page: Path) -> list[str]:
    """Return the inline code of a page."""
    return re.findall(r"`([^`\n]+)`", FENCE.sub("", page.read_text(encoding="utf-8")))


def commands(page: Path) -> Iterator[list[str]]:
    """Return the arguments of every winnow command; a usage line with [options] or alternatives is none."""
    lines = [line for body in fences(page, "sh") for line in body.splitlines()] + inline(page)
    for line in lines:
        if line.startswith(("winnow ", ".venv/bin/winnow ")) and not re.search(r"[\[|…]|\.\.\.", line):
            yield shlex.split(line, comments=True)[1:]


def queries(page: Path) -> list[str]:
    """Return the SQL of a page: its blocks and what it hands to ``winnow sql``."""
    asked = [words for words in commands(page) if "sql" in words[:-1] and parses(words)]
    return fences(page, "sql") + [parser().parse_args(words).query for words in asked]


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings."""
    titles = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[duckdb.DuckDBPyConnection]:
    """An empty store's published file."""
    home = Home(tmp_path_factory.mktemp("home"))
    store = Store(home, StoreSettings())
    with store.write():
        pass
    store.publish()
    with open_published(home) as connection:
        yield connection


def parses(words: list[str]) -> bool:
    try:
        parser().parse_args(words)
    except SystemExit:
        return False
    return True


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_parses(page: Path) -> None:
    for words in commands(page):
        if words in (["sql"], ["manifest"], ["explain"], ["influences"]):  # the command's name alone, in running text
            continue
        named_option = words[-1].startswith("--") and parses([*words, "1"])  # likewise `winnow run --budget`
        assert parses(words) or named_option, f"{page.name}: winnow {' '.join(words)}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_resolves(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", page.read_text(encoding="utf-8"))):
        if re.match(r"\w+:", target):
            continue
        path, _, anchor = target.partition("#")
        place = page.parent / path if path else page
        assert place.exists(), f"{page.name}: {target}"
        if anchor:
            assert anchor in anchors(place), f"{page.name}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_query_binds_against_an_empty_store(page: Path, published: duckdb.DuckDBPyConnection) -> None:
    for query in queries(page):
        published.execute(f"EXPLAIN {query}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_path_of_the_checkout_exists(page: Path) -> None:
    examples = {title for _, title, _ in FENCE.findall(page.read_text(encoding="utf-8"))}
    for text in inline(page):
        if text.startswith(tuple(f"{folder}/" for folder in FOLDERS)) and re.fullmatch(r"[\w./]+", text):
            assert (ROOT / text).exists() or text in examples, f"{page.name}: {text}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_setting_and_column_named_with_its_section_or_table_exists(page: Path) -> None:
    sections = {name: set(field.annotation.model_fields) for name, field in Config.model_fields.items()}  # type: ignore[union-attr]
    for text in inline(page):
        first, dot, second = text.partition(".")
        if not dot or not re.fullmatch(r"\w+", second) or second in ("py", "md", "toml", "json", "duckdb", "parquet"):
            continue
        known = set(sections.get(first, ()))
        if first in tables():
            known |= {name for name, _, _ in tables()[first].columns}
        assert not known or second in known, f"{page.name}: {text}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_toml_example_is_a_valid_configuration(page: Path) -> None:
    for body in fences(page, "toml"):
        raw = tomllib.loads(body)
        if raw.get("mixture", {}).get("method") == "equal":  # the page says that it has to be registered first
            continue
        thresholds(validate_config(raw, page).quality)


@pytest.mark.parametrize("stage", STAGE_PAGES)
def test_a_stages_page_names_its_asset_and_every_table_that_it_writes(stage: str) -> None:
    page = ROOT / "docs" / f"{stage}.md"
    written = set(re.findall(r"`(\w+)`", page.read_text(encoding="utf-8")))
    assert {table.name for table in tables().values() if table.stage == stage and not table.internal} <= written
    assert f"assets/{stage}.py" in inline(page)


def test_the_pages_name_every_setting_of_a_source_and_a_location() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    for model in (Source, Location):
        assert all(f"`{name}`" in page for name in model.model_fields)


# -- the examples of docs/extending.md --------------------------------------------------------------------------------


def example(path: str, folder: Path) -> ModuleType:
    """Load a titled block of the page as a module from a file of its own."""
    page = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    body = next(text for _, title, text in FENCE.findall(page) if title == path)
    file = folder / Path(path).name
    file.write_text(body, encoding="utf-8")
    spec = spec_from_file_location(f"extending_{file.stem}", file)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_example_estimator_registers_itself_and_balances_the_layers(tmp_path: Path) -> None:
    import torch

    from winnow.attribution import estimators

    try:
        example("winnow/attribution/estimators/layer_balanced.py", tmp_path)
        made = estimators.make_directional("layer_balanced")
        gradients = {"loud": torch.full((2, 3), 50.0).double(), "quiet": torch.tensor([[3e-9, 4e-9]]).double()}
        directions = made.precondition(gradients, estimators.Context(damping=0.1))
        assert {name: round(float(value.norm()), 12) for name, value in directions.items()} == {"loud": 1, "quiet": 1}
        assert torch.allclose(directions["quiet"], torch.tensor([[0.6, 0.8]]).double())
        two = made.precondition({"loud": torch.stack([gradients["loud"], torch.eye(2, 3)])}, estimators.Context(0.1))
        assert torch.allclose(two["loud"].norm(dim=(1, 2)), torch.ones(2).double())  # a query at a time
    finally:
        estimators._REGISTRY.pop("layer_balanced", None)


def test_the_example_policy_runs_a_bandit_and_finds_the_better_arm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from winnow.selection import BanditSettings, build_arms, opening_probes, policies, run_bandit

    module = example("winnow/selection/policies/standard_error.py", tmp_path)
    monkeypatch.setattr(policies, "__path__", [*policies.__path__, str(tmp_path)])
    monkeypatch.setitem(sys.modules, "winnow.selection.policies.standard_error", module)
    assert "standard_error" in policies.policy_names()
    ids = np.random.default_rng(0).integers(0, 256, (90, 16), dtype=np.uint8)
    clusters = np.repeat([0, 1, 2], 30)
    arms = build_arms(ids, clusters, np.full(90, 10))
    opening = opening_probes(arms, 4, seed=0)
    reward = (clusters == 1) + 0.01 * np.arange(90) / 90
    settings = BanditSettings(block_tokens=50, max_probes=60, policy="standard_error")
    result = run_bandit(arms, opening, reward[opening], lambda positions: reward[positions], 250, settings)
    assert result.granted_tokens.tolist() == [0, 250, 0]


def test_the_example_of_taking_documents_takes_the_shortest_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow as pa

    from winnow.selection import build_arms, decide, within

    module = example("winnow/selection/within/shortest.py", tmp_path)
    monkeypatch.setattr(within, "__path__", [*within.__path__, str(tmp_path)])
    monkeypatch.setitem(sys.modules, "winnow.selection.within.shortest", module)
    ids = np.random.default_rng(0).integers(0, 256, (4, 16), dtype=np.uint8)
    arms = build_arms(ids, np.zeros(4, int), np.array([40, 10, 30, 20]))
    ledger = pa.table({"round": [1], "cluster": [0], "tokens_granted": [60]})
    made = decide(arms, ledger, None, 60, 0, within=within.make_within("shortest"))
    assert made.selected.tolist() == [False, True, True, True]
    coarse = within.make_within("shortest", {"step": 100})
    assert coarse.label == "shortest(step=100)" and coarse.keys(within.Candidates(arms, 0)).tolist() == [-0.0] * 4


def test_the_example_scorer_registers_itself_and_prefers_questions(tmp_path: Path) -> None:
    from winnow.quality import scorers

    try:
        example("winnow/quality/scorers/questions.py", tmp_path)
        fitted = scorers.make_scorer("questions", {"weight": 0.5}).fit(scorers.ScorerContext())
        scored = fitted.score(scorers.Documents.from_texts(["No.", "Why?", "Oh!!", ""]))
        assert scored.values[:3].tolist() == [0.0, 0.25, 0.25]
        assert scored.reasons == (None, None, None, "it has no characters")
    finally:
        scorers._REGISTRY.pop("questions", None)


def test_the_example_mixture_gives_each_source_with_tokens_its_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from winnow.mixture import policies
    from winnow.mixture.weights import plan_mixture

    module = example("winnow/mixture/policies/equal.py", tmp_path)
    monkeypatch.setattr(policies, "__path__", [*policies.__path__, str(tmp_path)])
    monkeypatch.setitem(sys.modules, "winnow.mixture.policies.equal", module)
    plan = plan_mixture({"a": 1000, "b": 300, "c": 0}, 400, "equal")
    assert plan.tokens == {"a": 200, "b": 200, "c": 0}
