"""Compiled loops on disk are those of the sources at hand."""

from __future__ import annotations

from winnow.dedup import _hash_kernels, _minhash_kernels, _shingle_kernels, _unit_kernels
from winnow.dedup._jit import sources_digest


def test_a_cached_loop_is_valid_for_one_state_of_all_kernel_modules():
    for loop in (_hash_kernels.xxh64, _unit_kernels.cut, _shingle_kernels.shingle_hashes, _minhash_kernels.affine32):
        assert loop._cache._cache_file._source_stamp == sources_digest()
