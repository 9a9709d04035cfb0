"""The examples of docs/attribution.md, run one after the other as in a notebook."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

PAGE = Path(__file__).parents[2] / "docs" / "attribution.md"


def test_the_notebook_examples_run_and_give_what_they_say(capsys: pytest.CaptureFixture[str]) -> None:
    found: dict[str, Any] = {}
    for body in re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        exec(compile(body, str(PAGE), "exec"), found)
    assert [curve.shape for curve in found["curves"]] == [run.losses.shape for run in found["runs"][4:]]
    assert [one.removed for one in found["found"].rounds] == [0, 3, 6]
    np.testing.assert_array_equal(found["places"], found["same"])
    np.testing.assert_allclose(found["values"], found["exact"], rtol=1e-3)
    assert "'document'" in capsys.readouterr().out
