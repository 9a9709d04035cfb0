"""Mixture: how many tokens each source gets, and the manifests that say exactly what to train on."""

from winnow.mixture.manifest import ROWS, Difference, Manifest, build_manifest, diff_manifests, manifest_digest
from winnow.mixture.manifest_files import (
    Verification,
    manifest_versions,
    next_version,
    read_manifest,
    verify_manifest,
    write_manifest,
)
from winnow.mixture.weights import MIXTURES, Mixture, hamilton, plan_mixture, source_weights

__all__ = [
    "MIXTURES",
    "ROWS",
    "Difference",
    "Manifest",
    "Mixture",
    "Verification",
    "build_manifest",
    "diff_manifests",
    "hamilton",
    "manifest_digest",
    "manifest_versions",
    "next_version",
    "plan_mixture",
    "read_manifest",
    "source_weights",
    "verify_manifest",
    "write_manifest",
]
