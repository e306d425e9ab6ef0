"""Dagster: a partitioned asset, each day of flights loaded once, whatever happens to the workers.

A partition of the asset is an interval of the job. A retry continues the same run from its checkpoints; a partition
that is materialised again, while its interval is loaded, succeeds at once.
"""

import os
from collections.abc import Iterator
from typing import Any

import dagster as dg
import ecmbatch_run

PROJECT = os.environ.get("FLIGHTS_PROJECT", "/srv/flights")
ECMBATCH = os.environ.get("FLIGHTS_ECMBATCH", "ecmbatch").split()
RETRY_SECONDS = float(os.environ.get("FLIGHTS_RETRY_SECONDS", "300"))


def load(context: dg.AssetExecutionContext, job: str) -> Iterator[dg.MaterializeResult[Any]]:
    """Load the partition's interval; what is known of the run becomes metadata of the materialisation."""
    window = context.partition_time_window
    finished = ecmbatch_run.run(
        job, project=PROJECT, window=(window.start, window.end), ecmbatch=ECMBATCH, log=context.log.info
    )
    match finished.decision:
        case "done":
            yield dg.MaterializeResult(metadata=_metadata(finished.facts))
        case "skip":
            # No result: what depends on this partition is skipped.
            context.log.warning(finished.message)
        case "fail":
            # Without another try: it would end the same way.
            raise dg.Failure(finished.message, metadata=_metadata(finished.facts), allow_retries=False)
        case "retry":
            raise dg.Failure(finished.message, metadata=_metadata(finished.facts))


def _metadata(facts: dict[str, Any]) -> dict[str, Any]:
    rows = facts.get("rows", {})
    named = {f"rows_{name}": count for name, count in rows.items() if count}
    row_count = {"dagster/row_count": rows["staged"]} if rows else {}
    plain = {name: value for name, value in facts.items() if name != "rows" and value is not None}
    return {**plain, **named, **row_count}


@dg.asset(
    partitions_def=dg.DailyPartitionsDefinition(start_date="2013-01-01", timezone="UTC"),
    retry_policy=dg.RetryPolicy(max_retries=5, delay=RETRY_SECONDS, backoff=dg.Backoff.EXPONENTIAL),
    # A DuckDB file has one writer at a time. With PostgreSQL as the store, more are fine.
    pool="flights_store",
    # A dependency of ecmbatch's own that is not met skips, see exit code 4.
    output_required=False,
)
def flights(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult[Any]]:
    """Flights by day."""
    yield from load(context, "flights-by-day")


daily = dg.build_schedule_from_partitioned_job(
    dg.define_asset_job("flights_daily", selection=[flights]), hour_of_day=2
)
defs = dg.Definitions(assets=[flights], schedules=[daily])
