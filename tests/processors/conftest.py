from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest

from ecmbatch.processors.field_mapper import FIELD_MAPPER
from ecmbatch.processors.processor import RunFacts

MapFields = Callable[..., pa.RecordBatch]


@pytest.fixture
def facts() -> RunFacts:
    return RunFacts(run_id="run-1", job_id="job-1", started_at=datetime(2024, 3, 1, 2, tzinfo=UTC))


@pytest.fixture
def map_fields(facts: RunFacts) -> MapFields:
    """``map_fields({"target": expression}, batch)``: the batch of target fields."""

    def run(fields: Mapping[str, Any], batch: pa.RecordBatch, **options: Any) -> pa.RecordBatch:
        config = FIELD_MAPPER.parse_config({"fields": fields, **options})
        return FIELD_MAPPER.build(config, facts).process(batch)

    return run
