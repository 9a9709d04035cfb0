"""An explanation as a page of text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

SIGNALS_SHOWN = ("words", "lines", "stop_words_distinct", "unigram_entropy", "compression_ratio")


def lines(found: dict[str, Any]) -> list[str]:
    """Return what a person wants to know first: the verdict, then the evidence in the order of the stages."""
    if "withdrawn" in found:
        return list(_withdrawn(found))
    return [*_head(found), *_origin(found), *_judgements(found), *_influence(found), *_rounds(found)]


def _withdrawn(found: dict[str, Any]) -> Iterator[str]:
    yield f"document {found['document']['doc_id']}"
    for demand in found["withdrawn"]:
        why = f": {demand['reason']}" if demand["reason"] else ""
        yield f"withdrawn  by {demand['kind']} {demand['value']} at {demand['withdrawn_at']:%Y-%m-%d %H:%M}{why}"
    for place in found["occurrences"][:10]:
        yield f"stood in   {place['shard']} row {place['row']}" + (
            f", id {place['original_id']}" if place["original_id"] else ""
        )
        yield f"           {_file(place)}"
    for row in found["manifests"]:
        yield f"manifest   {row['version']} has it, at place {row['order']}; no later one will"


def _file(place: dict[str, Any]) -> str:
    """Say which file an occurrence is in, and which run read it."""
    return f"{place['path']}, sha256 {(place['sha256'] or '-')[:12]}, read by run {place['run_id']}"


def _head(found: dict[str, Any]) -> Iterator[str]:
    document = found["document"]
    yield f"document {document['doc_id']}"
    yield f"  {' '.join((document['excerpt'] or '').split())[:160]}"
    manifest = found["manifest"]
    if manifest is None:
        yield "verdict    none yet: no manifest has been made"
    elif not found["decision"]:
        yield f"verdict    none in {manifest['version']}: it arrived after that manifest was made"
    else:
        decision = found["decision"][0]
        by = f"decided by {decision['stage']}: {decision['reason']}"
        yield f"verdict    {decision['verdict']} in {manifest['version']}, {by}"
        yield f"           {decision['detail']}"
        if decision["matched_doc"]:
            yield f"           the kept document is {decision['matched_doc']}"
        if found["manifest_row"]:
            row = found["manifest_row"][0]
            yield f"           place {row['order']} in training, {row['tokens']} tokens, {row['repeats']} time(s)"
        if decision["in_control"]:
            yield "           the equal-budget random selection takes it too"


def _origin(found: dict[str, Any]) -> Iterator[str]:
    document = found["document"]
    yield f"occurs     {document['dup_count']} time(s); {document['characters']} characters"
    for place in found["occurrences"][:10]:
        mark = "*" if (place["shard"], place["row"]) == (document["shard"], document["row"]) else " "
        yield f"         {mark} {place['shard']} row {place['row']}" + (
            f", id {place['original_id']}" if place["original_id"] else ""
        )
        yield f"           {_file(place)}"
    for count in found["tokens"]:
        yield f"tokens     {count['tokens']} (tokenizer {count['tokenizer'][:12]})"


def _judgements(found: dict[str, Any]) -> Iterator[str]:
    for signals in found["signals"]:
        yield "signals    " + ", ".join(f"{name} {signals[name]:.4g}" for name in SIGNALS_SHOWN if name in signals)
        yield "           Gopher: " + (
            "passes every rule" if signals["gopher_passed"] else f"fails {signals['gopher_reason']}"
        )
    for group in found["duplicates"]:
        own = group["keeper_id"] == found["document"]["doc_id"]
        role = "is kept for" if own else f"gives way to {group['keeper_id']} (similarity {group['similarity']:.3f}) in"
        yield f"duplicates {group['kind']}: {role} a group of {group['group_size']}"
    for pair in found["duplicate_pairs"]:
        other = f"{pair['other']} ({pair['source']}, id {pair['original_id']})"
        yield f"           Jaccard {pair['similarity']:.3f} with {other}"
    for match in found["contamination"]:
        yield from _overlap(match)
    for cluster in found["cluster"]:
        size = f"{cluster['documents']} documents, distance {cluster['distance']:.3f}"
        yield f"cluster    {cluster['cluster']} ({cluster['label']}), {size}"


def _overlap(match: dict[str, Any]) -> Iterator[str]:
    verdict = "contaminated" if match["contaminated"] else "below the limit"
    shared = " ".join((match["shared_text"] or "").split())[:100]
    item = f"{match['evaluation_set']}, item {match['item_id']}"
    yield f"overlap    {match['longest_match']} words in a row with {item} ({verdict}): “{shared}”"
    if match["method"] == "gapped":
        limit = f"{match['required']:.2f}" if match["required"] is not None else "none is enough"
        answer = {True: ", its answer near", False: ", its answer not near", None: ""}[match["answer_near"]]
        yield f"           score {match['score']:.2f} of the {match['part']} (limit {limit}){answer}"
    if match["items"] > 1:
        yield f"           it holds {match['items']} items of {match['evaluation_set']} in all"


def _influence(found: dict[str, Any]) -> Iterator[str]:
    for probe in found["probes"]:
        value = f"{probe['influence']:+.4g}" if probe["influence"] is not None else f"excluded: {probe['reason']}"
        yield f"probe      {probe['phase']} at {probe['checkpoint']}: influence {value} ({probe['method']})"
    for score in found["scores"]:
        rank = f"above {score['rank_share']:.0%} of all documents"
        yield f"score      {score['scorer']} {score['score']:+.4g} at {score['checkpoint']}: {rank}"


def _rounds(found: dict[str, Any]) -> Iterator[str]:
    for pull in found["rounds"][:12]:
        reward = f"{pull['reward']:+.4g}" if pull["reward"] is not None else "none"
        granted = f"{pull['tokens_granted'] or 0:,} tokens granted"
        outcome = f"{pull['verdict']}, {pull['probes']} probes, reward {reward}, {granted}"
        yield f"round {pull['round']:<4} its cluster was pulled: {outcome}"
    if len(found["rounds"]) > 12:
        yield f"           and {len(found['rounds']) - 12} more pulls"
