"""The decorator of compiled loops, which may call loops of other modules.

numba's cache on disk asks only whether the file of a function has changed, not the files of the functions that were
compiled into it: after an upgrade it would go on with the old ones. Here a cached loop is valid for one state of all
the kernel modules (``_*.py``) of the package. numba is slow to import: only kernel modules import this one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from numba import njit


@cache
def sources_digest() -> bytes:
    """Return the digest of the sources that may be compiled into each other."""
    root = Path(__file__).parent
    digest = sha256()
    for path in sorted(root.rglob("_[!_]*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.digest()


def kernel(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """Compile a function without the GIL, cached on disk as long as no kernel module changes.

    ``options`` are more of ``numba.njit``. What is inlined into its callers (``inline="always"``) needs no cache: it is
    decorated with ``njit`` itself.
    """
    if function is None:
        return lambda decorated: kernel(decorated, **options)
    compiled = njit(nogil=True, cache=True, **options)(function)
    index = getattr(getattr(compiled, "_cache", None), "_cache_file", None)
    if index is None or not hasattr(index, "_source_stamp"):  # another numba: rather slow to start than wrong
        return njit(nogil=True, **options)(function)
    index._source_stamp = sources_digest()
    return compiled
