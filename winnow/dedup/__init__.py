"""Near-duplicate detection: shingles, MinHash signatures, bands, candidate pairs, exact verification, keepers."""
