"""Airflow 3: each day of flights, loaded once, whatever happens to the workers.

The interval of the DAG run is the window of the run. Another try of a task continues the same run from its
checkpoints; a task that is cleared and run again finds its interval loaded, and succeeds.
"""

from __future__ import annotations

import os
import subprocess
from datetime import UTC, datetime, timedelta
from typing import Any

import ecmbatch_run
from airflow.sdk import BaseOperator, Context, CronDataIntervalTimetable, dag, task
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

PROJECT = os.environ.get("FLIGHTS_PROJECT", "/srv/flights")
ECMBATCH = os.environ.get("FLIGHTS_ECMBATCH", "ecmbatch").split()
RETRY_DELAY = timedelta(seconds=float(os.environ.get("FLIGHTS_RETRY_SECONDS", "300")))


class EcmbatchOperator(BaseOperator):
    """Loads the interval of the DAG run; what is known of the run is the task's XCom."""

    def __init__(self, *, job: str, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.job = job
        self._process: subprocess.Popen[str] | None = None

    def execute(self, context: Context) -> dict[str, Any]:
        finished = ecmbatch_run.run(
            self.job,
            project=PROJECT,
            window=(context["data_interval_start"], context["data_interval_end"]),
            ecmbatch=ECMBATCH,
            log=self.log.info,
            started=self._remember,
        )
        match finished.decision:
            case "done":
                return finished.facts
            case "skip":
                raise AirflowSkipException(finished.message)
            case "fail":
                # Without another try: it would end the same way.
                raise AirflowFailException(finished.message)
            case "retry":
                raise RuntimeError(finished.message)

    def on_kill(self) -> None:
        # The run stops at a checkpoint, also when Airflow does not wait for it.
        if self._process is not None:
            self._process.terminate()

    def _remember(self, process: subprocess.Popen[str]) -> None:
        self._process = process


@dag(
    # A plain cron string has no interval in Airflow 3.
    schedule=CronDataIntervalTimetable("0 2 * * *", timezone="UTC"),
    start_date=datetime(2013, 1, 1, tzinfo=UTC),
    catchup=False,
    # A DuckDB file has one writer at a time. With PostgreSQL as the store, more are fine.
    max_active_runs=1,
    default_args={"retries": 5, "retry_delay": RETRY_DELAY, "execution_timeout": timedelta(hours=2)},
)
def flights() -> None:
    """Flights by day, and what was loaded."""
    load = EcmbatchOperator(task_id="load_flights", job="flights-by-day")

    @task
    def report(facts: dict[str, Any]) -> int:
        rows = facts["rows"]
        print(f"{rows['read']} rows read, fresh as of {facts['as_of']}, run {facts['run_id']}")
        return int(rows["read"])

    report(load.output)


dag_of_flights = flights()
