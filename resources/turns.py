"""One step at a time in a home.

The pool of ``dagster.yaml`` says so too, and shows in the UI who waits for whom; but on SQLite two processes can claim
its one place in the same moment. A step reads what is missing and writes it later, so two at once would write it twice.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Iterator
from typing import Any

import dagster as dg

from resources.workspace import Workspace
from winnow.store.turns import file_turn

Compute = Callable[..., Any]


def one_at_a_time(compute: Compute) -> Compute:
    """Let a step wait, as long as it takes, while another process computes one in the same home.

    For functions and generators of (context, workspace). A process that is killed lets its turn go at once.
    """
    if inspect.isgeneratorfunction(compute):

        @functools.wraps(compute)
        def yielding(context: dg.AssetExecutionContext, workspace: Workspace) -> Iterator[Any]:
            with file_turn(workspace.paths.store, math.inf, "step", "computed"):
                yield from compute(context, workspace)

        return yielding

    @functools.wraps(compute)
    def returning(context: dg.AssetExecutionContext, workspace: Workspace) -> Any:
        with file_turn(workspace.paths.store, math.inf, "step", "computed"):
            return compute(context, workspace)

    return returning
