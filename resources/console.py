"""What a run prints: the stages' own messages, without Dagster's bookkeeping."""

from __future__ import annotations

import logging
import sys
import time

import dagster as dg


class _OwnMessages(logging.Filter):
    """Drop engine events, except failures."""

    def filter(self, record: logging.LogRecord) -> bool:
        event = getattr(record, "dagster_meta", {}).get("dagster_event")
        return event is None or getattr(event, "is_step_failure", False)


class _Line(logging.Formatter):
    def __init__(self) -> None:
        super().__init__()
        self._started = time.monotonic()

    def format(self, record: logging.LogRecord) -> str:
        meta = getattr(record, "dagster_meta", {})
        event = meta.get("dagster_event")
        step = (event.step_key if event is not None else meta.get("step_key")) or ""
        text = meta.get("orig_message") or record.getMessage()
        level = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
        return f"{time.monotonic() - self._started:6.1f}s  {step:<18} {level}{text}"


@dg.logger
def progress(_: dg.InitLoggerContext) -> logging.Logger:
    """Print a line for each message of a stage: seconds since the run began, stage, message."""
    logger = logging.Logger("winnow.progress", logging.INFO)
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_OwnMessages())
    handler.setFormatter(_Line())
    logger.addHandler(handler)
    return logger
