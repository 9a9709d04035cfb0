"""Waiting for another process."""

from __future__ import annotations

import subprocess


def wait_until_ready(other: subprocess.Popen[str]) -> None:
    assert other.stdout is not None
    assert other.stdout.readline() == "ready\n"
