"""What must hold of a manifest, recomputed from its rows; a blocking check stops what comes after."""

from collections.abc import Iterator

import dagster as dg

from resources.report import table_of
from resources.workspace import Workspace
from winnow.stages.checks import check_manifest
from winnow.stages.duplicate_alarms import stored_alarms, told
from winnow.stages.influence_models import freshness

NAMES = {
    "funnel_equality": "Per source: records = kept + removed by reason + quarantined.",
    "no_reference_leakage": "No document of the manifest shares a long run of words with the reference.",
    "no_duplicate_pair": "No verified duplicate pair has both members in the manifest.",
    "within_budget": "The manifest's tokens stay within its budget.",
    "digest_verifies": "The digest recomputed from the manifest's files is the one it carries.",
}


@dg.multi_asset_check(
    specs=[
        *(dg.AssetCheckSpec(name, asset="manifests", blocking=True, description=text) for name, text in NAMES.items()),
        dg.AssetCheckSpec(
            "influence_model_above_floor",
            asset="manifests",
            description="The influence model's held-out Spearman reaches its floor; below it the model is not used.",
        ),
    ],
    pool="store",
)
def manifest_checks(context: dg.AssetCheckExecutionContext, workspace: Workspace) -> Iterator[dg.AssetCheckResult]:
    """Check the newest manifest."""
    for outcome in check_manifest(workspace.store(), workspace.config()):
        yield dg.AssetCheckResult(
            check_name=outcome.name,
            asset_key="manifests",
            passed=outcome.passed,
            severity=dg.AssetCheckSeverity.ERROR if outcome.name in NAMES else dg.AssetCheckSeverity.WARN,
            metadata={"manifest": outcome.version, "detail": outcome.detail},
        )


@dg.asset_check(asset="shards", name="every_file_taken", description="No file was left as it was.", pool="store")
def corpus_check(workspace: Workspace) -> dg.AssetCheckResult:
    """Say which files are waiting: their bytes did not come, or their fields contradict those of their source."""
    rows = workspace.store().query("SELECT path, reason FROM refused ORDER BY path LIMIT 20")
    return dg.AssetCheckResult(
        passed=not rows,
        severity=dg.AssetCheckSeverity.ERROR,
        metadata={"refused": table_of([{"path": path, "reason": reason} for path, reason in rows])},
    )


@dg.asset_check(
    asset="duplicates",
    blocking=True,
    description="No near-duplicate group and no source's loss is too large to be believed.",
    pool="store",
)
def duplicates_within_reason(workspace: Workspace) -> dg.AssetCheckResult:
    """Stop before selection when a template, a wrong field or a low threshold would remove far too much."""
    alarms = stored_alarms(workspace.store(), workspace.config().duplicates)
    groups = [
        {
            "limit": alarm.setting,
            "passed by": alarm.place,
            "keeper": group.keeper_id,
            "documents": group.documents,
            "source": group.source,
            "begins": group.excerpt,
        }
        for alarm in alarms
        for group in alarm.groups
    ]
    return dg.AssetCheckResult(
        passed=not alarms,
        severity=dg.AssetCheckSeverity.ERROR,
        description=told(alarms) if alarms else None,
        metadata={"largest groups": table_of(groups)} if alarms else {},
    )


@dg.asset_check(
    asset="influence_models",
    name="influence_model_fresh",
    description="The influence model of the checkpoint before still ranks this checkpoint's probes.",
    pool="store",
)
def influence_model_fresh(workspace: Workspace) -> dg.AssetCheckResult:
    """Warn when influence moves faster than the checkpoints follow each other: scores grow old before their end."""
    found = freshness(workspace.store())
    return dg.AssetCheckResult(
        passed=found is None or not found.stale,
        severity=dg.AssetCheckSeverity.WARN,
        description=found.told if found else None,
        metadata={"model": found.model, "former": found.former, "former_spearman": found.spearman} if found else {},
    )
