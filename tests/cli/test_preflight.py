"""What is known to be wrong before a run is told before it writes anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from winnow.cli.preflight import check_before_run
from winnow.config import Config
from winnow.errors import UserError
from winnow.home import Home


@pytest.mark.parametrize(
    ("influence", "told"),
    [
        ({"estimator": "magic"}, "'magic' is unknown"),
        ({"estimator": "bm25"}, "'bm25' cannot stream over a corpus; use one of .*ekfac"),
        ({"scope": "mlp("}, r"influence.scope 'mlp\(': not a regular expression"),
    ],
)
def test_an_estimator_or_scope_that_no_model_can_be_asked_with_is_refused(
    tmp_path: Path, influence: dict[str, str], told: str
) -> None:
    (tmp_path / "inbox/web").mkdir(parents=True)
    (tmp_path / "inbox/web/a.jsonl").write_text('{"text": "a text of some words"}\n' * 4)
    config = Config(selection={"budget_tokens": 5})
    check_before_run(Home(tmp_path), config, "signals")
    changed = config.model_copy(update={"influence": config.influence.model_copy(update=influence)})
    with pytest.raises(UserError, match=told):
        check_before_run(Home(tmp_path), changed, "signals")
