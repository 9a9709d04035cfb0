"""``winnow attribution validate`` at the checkpoint of a finished run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from worlds import Finished, World

from winnow.cli import main
from winnow.errors import UserError
from winnow.stages.attribution_validation import read_facts


def validated(world: World, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[list[dict], str]:
    home = ["--home", str(world.home.root)]
    assert main([*home, "attribution", "validate", "--documents", "32", "--format", "json", *more]) == 0
    found = capsys.readouterr()
    return json.loads(found.out), found.err


@pytest.mark.slow
def test_every_check_that_trains_nothing_runs_or_says_why_not(
    finished: Finished, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, said = validated(finished.world, capsys)
    by_check = {one["validation"]: [row for row in rows if row["validation"] == one["validation"]] for one in rows}
    assert set(by_check) == {"one_step", "tail_patch", "corruption"}
    for name, reason in (
        ("stability", "no earlier one"),
        ("memorisation", "not recorded"),
    ):
        assert any(line.startswith(f"{name} was skipped") and reason in line for line in said.splitlines()), name
    assert "fact_tracing" not in said
    assert {one["checkpoint"] for one in rows} == {finished.world.checkpoint}
    assert {(one["scope"], one["damping"], one["seed"]) for one in rows} == {("blocks", 0.1, 0)}
    assert len({one["reference"] for one in rows}) == 1 and all(one["reference"] for one in rows)
    assert {(one["estimator"], one["projection"]) for one in by_check["one_step"]} == {("ekfac", 0)}
    assert {one["estimator"] for one in by_check["corruption"]} == {None, "self_influence"}
    assert {one["method"] for one in by_check["tail_patch"]} == {"ekfac", "bm25", "random documents"}
    assert all(-1.0 <= one["value"] <= 1.0 for one in by_check["one_step"])
    assert validated(finished.world, capsys)[0] == rows


@pytest.mark.slow
def test_a_trained_checkpoint_is_compared_with_the_one_before(
    copy_of_base: Callable[[str], World], capsys: pytest.CaptureFixture[str]
) -> None:
    world = copy_of_base("registered")
    (name,) = {folder.name for folder in world.home.checkpoints.iterdir()} - {world.checkpoint}
    assert world.register(name).success
    rows, _ = validated(world, capsys, "--checkpoint", name, "--only", "stability", "--only", "memorisation")
    found = {(one["method"], one["measure"], one["at"]): one["value"] for one in rows}
    assert 0.0 <= found["ekfac, 2 checkpoints", "drowned", ""] <= 1.0
    assert ("loss", "seen_minus_unseen", "seen") in found and ("change of loss", "auc", "seen") in found


@pytest.mark.slow
def test_facts_of_the_users_own_are_traced_and_a_small_model_is_trained_if_asked(
    finished: Finished, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    text = finished.world.value("SELECT text FROM texts SEMI JOIN manifest_rows USING (doc_id) ORDER BY doc_id LIMIT 1")
    first, second = sorted({word for word in text[:120].split() if word.isalpha()}, key=len)[-2:]
    path = tmp_path / "facts.jsonl"
    path.write_text(json.dumps({"subject": first, "object": second, "text": f"{first} and {second}"}) + "\n")
    rows, _ = validated(finished.world, capsys, "--only", "fact_tracing", "--facts", str(path), "--only", "brittleness")
    tracing = {(one["method"], one["measure"]): one for one in rows if one["validation"] == "fact_tracing"}
    assert tracing["bm25", "mrr"]["count"] == 1 and 0.0 < tracing["bm25", "mrr"]["value"] <= 1.0
    rises = {one["method"] for one in rows if one["measure"] == "loss_rise"}
    assert rises == {"ekfac", "tfidf", "random removal"}


def test_facts_that_are_none_and_checks_that_are_unknown_are_named(tmp_path: Path) -> None:
    path = tmp_path / "facts.jsonl"
    path.write_text('{"subject": "A", "object": "B", "text": "A is B"}\n{"subject": "A", "text": "A is"}\n')
    with pytest.raises(UserError, match="record 2: field 'object'"):
        read_facts(path)
    with pytest.raises(UserError, match="no such file"):
        read_facts(tmp_path / "absent.jsonl")
    path.write_text('{"subject": "A", "object": "B", "text": "A is B"}\n')
    assert [one.object for one in read_facts(path)] == ["B"]
