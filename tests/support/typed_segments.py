"""Typed segments from text ones, as compaction could have written them, by a given schema."""

from __future__ import annotations

import dataclasses
import itertools

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from lakelog import Lake, document, sql
from lakelog.disk import disk
from lakelog.entries.entry import SegmentEntry
from lakelog.moves.publication import Change, publish
from lakelog.segments import segment, segment_sql
from lakelog.typed_columns import Member, Schema

SCHEMA = Schema(
    (
        Member("s", "text"),
        Member("i", "int"),
        Member("f", "float"),
        Member("n", "number"),
        Member("b", "bool"),
        Member("e", "text", null=True),
        Member("o", "object", members=(Member("i", "int"), Member("a.b", "text"))),
        Member("l", "list", members=(Member("", "int", null=True),)),
        Member("j", "json"),
    )
)


OTHER = Schema((Member("i", "float"), Member("z", "text"), Member("o", "text", null=True)))


def retype(lake: Lake, *schemas: Schema | None, branch: str = "main") -> list[int]:
    """Exchange sorted segments of text for typed ones, each of the next schema in turn; None leaves
    one as it is. Return how many payloads of each are still text."""
    schemas = schemas or (SCHEMA,)
    state = lake.store.manifests.load(lake.store.refs.head(branch).move.snapshot)
    entries = lake.store.manifests.segments(state, "events")
    texts = []
    of_text = [e for e in entries if e.layout == "sorted" and not e.fields]
    for entry, schema in zip(of_text, itertools.cycle(schemas), strict=False):
        if schema is None:
            continue
        new = _typed(lake, entry, schema)
        change = Change("compact", entries=(entry.tombstone(), new), message="typed")
        publish(lake.store, branch, lambda head, state, change=change: change)
        texts.append(new.text_rows)
    return texts


def _typed(lake: Lake, entry: SegmentEntry, schema: Schema) -> SegmentEntry:
    paths = lake.store.paths
    names = [*segment.EVENT_COLUMNS, "seq"]
    rebuilt = schema.text_sql("f")
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        structs = f"from_json(data, {sql.literal(schema.structure())})"
        connection.execute(f"""CREATE TABLE rows AS SELECT *, {structs} AS f
            FROM ({segment_sql.rows_sql(paths, [entry])}) ORDER BY type, time, seq""")
        texts = connection.sql(f"SELECT {', '.join(names)} FROM rows").to_arrow_table()
        listed = ", ".join(
            f"CASE WHEN is_same IS TRUE THEN NULL ELSE {name} END AS data"
            if name == "data"
            else name
            for name in names
        )
        rows = connection.sql(f"""SELECT {listed}, CASE WHEN is_same THEN f END AS fields
            FROM (SELECT *, {rebuilt} = data AS is_same FROM rows)""").to_arrow_table()
    columns = pa.schema([*segment.segment_schema("events", "sorted"), rows.schema.field("fields")])
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, columns, compression="zstd", store_schema=False) as writer:
        writer.write_table(rows.cast(columns))
        notes = {"format": "1", "commit": disk.random_hex(), "kind": "events", "wal": "{}"}
        notes |= {"layout": "sorted", "fields": schema.to_json()}
        writer.add_key_value_metadata({f"lakelog.{key}": note for key, note in notes.items()})
    data = bytes(sink.getvalue())
    digest = document.digest(data)
    disk.put_object(paths.object("segments", digest), data)
    return dataclasses.replace(
        segment.describe_rows(digest, len(data), texts, "events", "sorted"),
        seq=entry.seq,
        made_from=(entry.key,),
        fields=schema.key,
        text_rows=rows.num_rows - rows["data"].null_count,
    )
