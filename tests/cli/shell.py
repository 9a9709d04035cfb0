"""Commands run in this process, as the tests of the command line read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from winnow.cli import main


class Shell:
    """Runs commands against one home and returns exit code, output and errors."""

    def __init__(self, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.home, self.capsys = home, capsys

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        self.capsys.readouterr()
        code = main(["--home", str(self.home), *arguments])
        printed = self.capsys.readouterr()
        return code, printed.out, printed.err

    def json(self, *arguments: str, code: int = 0) -> list[dict[str, Any]]:
        ended, out, err = self(*arguments, "--format", "json")
        assert (ended, err) == (code, "")
        found = json.loads(out)
        assert isinstance(found, list) and all(isinstance(row, dict) for row in found)
        return found
