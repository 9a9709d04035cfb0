"""Which source is preferred where two say the same."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from winnow.config import Config


def source_priorities(config: Config) -> dict[str, int]:
    """Return the priorities of the sources that the configuration names; smaller is preferred."""
    return {name: source.priority for name, source in config.corpus.sources.items()}


def priority_of(sources: pa.ChunkedArray, priorities: Mapping[str, int]) -> np.ndarray:
    """Return the priority int64 ``[N]`` of every row of a column of source names, 0 where none is named."""
    coded = sources.combine_chunks().dictionary_encode()
    values = [priorities.get(name, 0) for name in coded.dictionary.to_pylist()]
    return np.array(values, np.int64)[coded.indices.to_numpy()] if len(coded) else np.zeros(0, np.int64)
