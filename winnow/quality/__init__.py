"""Heuristic quality: one column a signal, and Gopher's verdict with the first rule that fails."""

from winnow.quality.gopher import GopherThresholds, gopher_verdict
from winnow.quality.signals import COLUMNS, compute_signals

__all__ = ["COLUMNS", "GopherThresholds", "compute_signals", "gopher_verdict"]
