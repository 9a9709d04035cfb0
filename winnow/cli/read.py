"""Commands that read the published store: they block nobody and work from any directory."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from winnow.cli.show import plain, show, show_records, show_stream
from winnow.config import load_config
from winnow.errors import UserError
from winnow.home import Home


def sql(options: argparse.Namespace) -> int:
    """Run one query on the published store, or on the store as it was when a manifest was made."""
    from winnow.store.asking import ask, open_for_questions

    with open_for_questions(Home.from_environment(options.home), options.at) as connection:
        columns, fetch = ask(connection, options.query)
        show_stream(columns, fetch, options.format)
    return 0


def manifest(options: argparse.Namespace) -> int:
    """List the manifests, show one, or verify one."""
    home = Home.from_environment(options.home)
    return {"list": _list, "show": _show, "verify": _verify}[options.action](home, options)


def _list(home: Home, options: argparse.Namespace) -> int:
    from winnow.store.published import open_published

    with open_published(home) as connection:
        cursor = connection.execute(
            "SELECT version, digest, parent, checkpoint, documents, tokens, budget_tokens, influence_model_used,"
            " made_at FROM manifests ORDER BY len(version), version"
        )
        columns = [column[0] for column in cursor.description or ()]
        show(columns, cursor.fetchall(), options.format)
    return 0


def _folder(home: Home, version: str) -> Path:
    from winnow.mixture.manifest_files import manifest_versions

    if version not in manifest_versions(home.manifests):
        known = ", ".join(manifest_versions(home.manifests)) or "none yet"
        raise UserError(f"no manifest '{version}' in {home.manifests}; there is: {known}")
    return home.manifests / version


def _show(home: Home, options: argparse.Namespace) -> int:
    record = json.loads((_folder(home, options.version) / "manifest.json").read_text())
    if options.format == "json":
        print(json.dumps([record], indent=2, ensure_ascii=False))
        return 0
    for name in ("version", "digest", "parent", "documents", "tokens", "token_budget", "seed"):
        print(f"{name:<14}{record[name] if record[name] is not None else '-'}")
    control = record["control"]
    print(f"{'control':<14}random selection of {control['documents']} documents, {control['tokens']:,} tokens")
    print("\nSources")
    show_records([{"source": name, **counts} for name, counts in record["sources"].items()], "table")
    print("\nFunnel (records)")
    show_records(funnel_rows(record["funnel"]), "table")
    print("\nInputs")
    for name, value in record["inputs"].items():
        print(f"  {name:<22}{value if not isinstance(value, dict) else json.dumps(value)}")
    return 0


def funnel_rows(funnel: dict[str, dict[str, dict[str, int]]]) -> list[dict[str, object]]:
    """Return the funnel as a row a source: records, kept, then every reason of removal that occurs."""
    reasons = sorted({outcome for outcomes in funnel.values() for outcome in outcomes} - {"records", "kept"})
    return [
        {
            "source": source,
            **{outcome: outcomes.get(outcome, {"records": 0})["records"] for outcome in ("records", "kept", *reasons)},
        }
        for source, outcomes in sorted(funnel.items())
    ]


def _verify(home: Home, options: argparse.Namespace) -> int:
    from winnow.mixture.manifest_files import read_manifest, verify_manifest

    folder = _folder(home, options.version)
    found = verify_manifest(folder)
    digest = read_manifest(folder).digest if found.ok else None
    if options.format == "json":
        print(
            json.dumps(
                [{"version": options.version, "ok": found.ok, "digest": digest, "problems": found.problems}], indent=2
            )
        )
    elif found.ok:
        print(f"{options.version} verifies: digest {digest}")
    else:
        print("\n".join([f"{options.version} does not verify:", *(f"  {problem}" for problem in found.problems)]))
    return 0 if found.ok else 1


def explain(options: argparse.Namespace) -> int:
    """Print every judgement on one document."""
    from winnow.cli.explanation import lines
    from winnow.stages.explain import explain_document
    from winnow.store.published import open_published

    with open_published(Home.from_environment(options.home)) as connection:
        found = explain_document(connection, options.doc_id, options.manifest)
    if options.format == "json":
        print(json.dumps([plain(found)], indent=2, ensure_ascii=False))
    else:
        print("\n".join(lines(found)))
    return 0


def config(options: argparse.Namespace) -> int:
    """Print the configuration in force."""
    import tomli_w

    home = Home.from_environment(options.home)
    settings = load_config(home.config).model_dump(mode="json")
    if options.format == "json":
        print(json.dumps([{"path": str(home.config), **settings}], indent=2))
    else:
        state = "" if home.config.exists() else " (does not exist: every value is a default)"
        print(f"# {home.config}{state}\n{tomli_w.dumps(settings)}", end="")
    return 0
