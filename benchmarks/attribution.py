"""Benchmarks of attribution: what it costs and how good it is.

    python benchmarks/attribution.py TOPIC [--help]

Each topic is a module ``attribution_TOPIC.py`` beside this one. Peers come with the ``bench-attribution`` extra:

    pip install -c constraints.txt -e '.[bench-attribution]'
    pip install -c constraints.txt --no-deps kronfluence

A topic whose peer is missing says so. Print-outs state dtype, threads, seeds, ratios and peak memory.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path


def topics() -> dict[str, str]:
    """Return the topics, by module: the files beside this one that take options and run."""
    folder = Path(__file__).resolve().parent
    found = [path for path in sorted(folder.glob("attribution_*.py")) if "\ndef run(" in path.read_text("utf-8")]
    return {path.stem.removeprefix("attribution_"): path.stem for path in found}


def main() -> None:
    """Run the topic asked for; no other is imported."""
    known = topics()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, add_help=False
    )
    parser.add_argument("topic", choices=known, metavar="TOPIC", help=", ".join(known))
    if len(sys.argv) < 2 or sys.argv[1] not in known:
        parser.add_argument("-h", "--help", action="help")
        parser.parse_args()
    module = importlib.import_module(known[sys.argv[1]])
    own = argparse.ArgumentParser(
        prog=f"attribution.py {sys.argv[1]}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.add(own)
    module.run(own.parse_args(sys.argv[2:]))


if __name__ == "__main__":
    main()
