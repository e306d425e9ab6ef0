from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import psycopg.sql
import psycopg.types.json
import pyarrow as pa
import pytest

from ecmbatch.stores.postgres import POSTGRES
from ecmbatch.stores.schema_change import wider_type
from ecmbatch.stores.store import Marker, Publication, Store
from ecmbatch.testing.store_contract import StoreContract
from postgres_server import PostgresServer

_NUMBERS = itertools.count(1)


@pytest.fixture(scope="class")
def database(postgres: PostgresServer) -> str:
    return postgres.new_database()


@pytest.mark.slow
class TestPostgresStoreKeepsTheContract(StoreContract):
    """Each test has a schema of its own.

    PostgreSQL has fewer types than Arrow, so what is read is turned back into the types that were published:
    nested values from JSON, large unsigned integers from decimals. No value may be lost by that.
    """

    @pytest.fixture(autouse=True)
    def schema_of_its_own(self, database: str) -> None:
        self.url = database
        self.schema = f"test {next(_NUMBERS)}"
        self.published: dict[str, pa.DataType] = {}

    def open_store(self, folder: Path) -> Store:
        settings = POSTGRES.parse_config({"url": self.url, "schema": self.schema})
        store = POSTGRES.build(settings, folder, print)
        publish = store.publish

        def remembering(publication: Publication, at: datetime) -> Marker:
            for field in publication.schema:
                before = self.published.get(field.name, field.type)
                self.published[field.name] = wider_type(before, field.type) or before
            return publish(publication, at)

        store.publish = remembering  # type: ignore[method-assign]
        return store

    def read_table(self, store: Store, name: str) -> pa.Table:
        with psycopg.connect(self.url) as connection:
            psycopg.types.json.set_json_loads(lambda text: json.loads(text, parse_float=Decimal), connection)
            cursor = connection.execute(
                psycopg.sql.SQL("SELECT * FROM {}").format(psycopg.sql.Identifier(self.schema, name))
            )
            assert cursor.description is not None
            names = [column.name for column in cursor.description]
            columns = list(zip(*cursor.fetchall(), strict=True)) or [()] * len(names)
        return pa.table({name: self.array(name, values) for name, values in zip(names, columns, strict=True)})

    def array(self, name: str, values: tuple[Any, ...]) -> pa.Array:
        type_ = self.published.get(name)
        if type_ is None or not (pa.types.is_nested(type_) or type_ == pa.uint64()):
            return pa.array(values)
        return pa.array([from_json(value, type_) for value in values], type_)


def from_json(value: Any, type_: pa.DataType) -> Any:
    """Return what a value of the type was before it became JSON."""
    if value is None:
        return None
    if pa.types.is_struct(type_):
        return {field.name: from_json(value[field.name], field.type) for field in type_}
    if pa.types.is_map(type_):
        assert isinstance(value, Mapping)
        return [(key, from_json(item, type_.item_type)) for key, item in value.items()]
    if pa.types.is_list(type_):
        return [from_json(item, type_.value_type) for item in value]
    if pa.types.is_timestamp(type_) and isinstance(value, str):
        return datetime.fromisoformat(value)
    if pa.types.is_floating(type_):
        return float(value)
    return int(value) if pa.types.is_integer(type_) else value
