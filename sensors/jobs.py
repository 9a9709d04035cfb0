"""The jobs that sensors and ``winnow run`` launch, and what is known of their runs."""

import dagster as dg

OF_SHARDS = dg.AssetSelection.assets(
    "shards", "occurrences", "quarantine", "documents", "signals", "sketches", "bands", "embeddings"
)
TRAINING = dg.AssetSelection.assets("train_stage", "validations")
VALIDATION = dg.AssetSelection.assets("attribution_bench")
LAB = dg.AssetSelection.assets("lab_runs", "lab_results")
CONSOLE: dict[str, dict[str, dict[str, dict[str, str]]]] = {"loggers": {"progress": {"config": {}}}}

ingest = dg.define_asset_job(
    "ingest", OF_SHARDS, config=CONSOLE, description="Read a delivery; judge every document that lacks a judgement."
)
curate = dg.define_asset_job(
    "curate",
    dg.AssetSelection.all() - OF_SHARDS - TRAINING - VALIDATION - LAB,
    config=CONSOLE,
    description="From judged documents to a manifest, for one checkpoint.",
)
register = dg.define_asset_job(
    "register", dg.AssetSelection.assets("checkpoints"), config=CONSOLE, description="Register a checkpoint."
)
train = dg.define_asset_job(
    "train", TRAINING, config=CONSOLE, description="Train on a manifest; compare with random data."
)
validate_attribution = dg.define_asset_job(
    "validate_attribution",
    VALIDATION,
    config=CONSOLE,
    description="Score the estimators of influence against retraining; minutes, and never by itself.",
)
lab = dg.define_asset_job(
    "lab", LAB, config=CONSOLE, description="Train one model a preset and compare them; hours, and never by itself."
)

JOBS = [ingest, curate, register, train, validate_attribution, lab]

ACTIVE = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
ENDED_BADLY = [dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
MOST_ATTEMPTS = 3
REQUEST = "winnow/request"


def active_runs(instance: dg.DagsterInstance, *jobs: str) -> int:
    """Return how many runs of these jobs wait or work."""
    return sum(instance.get_runs_count(dg.RunsFilter(job_name=job, statuses=ACTIVE)) for job in jobs)


def request(
    instance: dg.DagsterInstance, what: str, partition: str, job: str | None = None, requested: bool = False
) -> dg.RunRequest | dg.SkipReason:
    """Request a run for ``what`` once; again when it failed, up to ``MOST_ATTEMPTS`` times.

    ``requested`` says that it was asked for before. Dagster drops a run key that it has seen without a word, so each
    attempt has its own.
    """
    failed = instance.get_runs_count(dg.RunsFilter(tags={REQUEST: what}, statuses=ENDED_BADLY))
    if requested and not failed:
        return dg.SkipReason(f"{what} was requested before")
    if failed >= MOST_ATTEMPTS:
        return dg.SkipReason(f"{what} failed {failed} times: look at its runs, mend what is wrong, and run it by hand")
    return dg.RunRequest(run_key=f"{what}:{failed}", partition_key=partition, job_name=job, tags={REQUEST: what})
