"""What every source of a checkpoint's training does for the reference: unlearn a sample of it, and measure again.

By UnTrac (:mod:`winnow.attribution.untrac`) on the reference's selecting items, with the optimiser's own state. Every
source is unlearnt from the same checkpoint by as many steps, so sources of any size compare.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from winnow.attribution.adamw import run_optimizer
from winnow.attribution.run import Settings, TrainingRun
from winnow.attribution.untrac import Unlearner, source_influence
from winnow.config import Config
from winnow.errors import UserError
from winnow.home import Home
from winnow.identity import ids_from_numpy, ids_to_numpy
from winnow.stages.checkpoints import checkpoint_named, current_checkpoint
from winnow.stages.trained_on import trained_on
from winnow.stages.validation_ground import Ground
from winnow.store.store import Connection, load

log = logging.getLogger(__name__)

BATCH = 8
"""Documents of a step."""
SOURCES = "SELECT source, doc_id FROM documents SEMI JOIN asked USING (doc_id) ORDER BY source, doc_id"


def influence_of_sources(
    connection: Connection,
    home: Home,
    config: Config,
    *,
    checkpoint: str | None = None,
    steps: int = 8,
    say: Callable[[str], None] = log.info,
) -> list[dict[str, Any]]:
    """Return a row a source of what the checkpoint was trained on, the most helpful first.

    ``influence`` (nats a token, positive = helpful): by how much the reference's loss rises when ``steps`` batches of
    the source are unlearnt, the mean over its items, and ``se`` its standard error over them; ``documents`` of the
    source, of which ``unlearnt`` are drawn by a seeded hash. Sources without a document of two tokens are left out.
    Raises :class:`UserError` for a checkpoint that kept no optimiser's state, or a reference without items.
    """
    stored = checkpoint_named(connection, home, checkpoint or current_checkpoint(connection, config))
    ground = Ground(connection, home, config, stored, steps * BATCH, ())
    load(connection, "asked", pa.table({"doc_id": ids_from_numpy(trained_on(connection, config, stored).ids)}))
    rows = connection.execute(SOURCES).to_arrow_table()
    ids, names = ids_to_numpy(rows["doc_id"]), np.array(rows["source"].to_pylist(), dtype=object)
    drawn, sizes = {}, {}
    for name in dict.fromkeys(names.tolist()):
        own = ids[names == name]
        docs = ground.tokens(ground.texts(ground.drawn(own, ground.count)))
        if any(len(doc) >= 2 for doc in docs):
            drawn[name], sizes[name] = docs, len(own)
    last = ground.state(stored, ground.loaded)
    if last.optimizer is None:
        raise UserError(
            f"checkpoint '{stored.name}' has no optimiser state (optimizer.safetensors) to take steps with; choose one "
            "that was saved with it"
        )
    say(f"unlearning {len(drawn)} sources at {stored.name}, {steps} steps each")
    optimizer = run_optimizer(TrainingRun((), (last,)), Settings(seed=config.influence.seed))
    unlearner = Unlearner(ground.loaded.model, optimizer, last.optimizer, steps=steps, batch=BATCH)
    found = source_influence(unlearner, drawn, ground.queries.tokens, config.influence.seed)
    told = {"checkpoint": stored.name, "reference": ",".join(ground.references), "steps": steps}
    by_name = dict(zip(found.names, found.influence, strict=True))
    return [
        {
            "source": name,
            "influence": float(by_name[name].mean()),
            "se": float(by_name[name].std(ddof=1) / len(by_name[name]) ** 0.5) if len(by_name[name]) > 1 else None,
            "documents": sizes[name],
            "unlearnt": len(drawn[name]),
            "items": len(by_name[name]),
            "estimator": "untrac",
            "seed": config.influence.seed,
            **told,
        }
        for name in found.ranking
    ]
