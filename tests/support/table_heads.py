"""What several tests use: formats whose columns a header names."""

from __future__ import annotations

import datetime as dt
from typing import Any
from unittest import mock

from lakelog.formats import delimited, w3c, zeek
from lakelog.ingest import transform
from lakelog.ingest.transform import Transformer
from lakelog.lines.pieces import Chunk
from tests.support.two_ways import parsed

ZEEK = (
    "#separator \\x09\n#set_separator\t,\n#empty_field\t(empty)\n#unset_field\t-\n#path\tconn\n"
    "#open\t2020-01-01-00-00-00\n#fields\tts\tuid\tn\tlocal\ttags\tnums\tname\n"
    "#types\ttime\tstring\tcount\tbool\tset[string]\tvector[double]\tstring\n"
)
W3C = (
    "#Software: Microsoft Internet Information Services 10.0\n#Version: 1.0\n"
    "#Date: 2024-05-01 10:00:00\n#Fields: date time c-ip cs-uri-stem sc-status cs(User-Agent)\n"
)
CELLS = {
    "zeek": "1588205198.899709 - (empty) a,b 1.5,-0.25 C1 T \\x09 , 7",
    "w3c": '2024-05-01 10:00:01 1.2.3.4 - 404 500 200 "x""y" "" a+b /x',
    "csv": '2024-05-01T10:00:00Z info loud 1.5 0.1000 5 007 "a,b" "say""hi""" "" """a""" a"b'
    ' "x\\ny" é 1588205198 0.30000000000000004 \\ \x01 -0 1e5 1. .5 0.00001 12345678901234567.5'
    " -1 T",
    "tsv": '2024-05-01 a_b 1 "x,y" -3.0',
}
HEADS = {
    "zeek": (zeek.FORM, ZEEK, CELLS["zeek"].split(), "\t"),
    "w3c": (w3c.FORM, W3C, [*CELLS["w3c"].split(), '"a b"'], " "),
    "csv": (
        delimited.FORM,
        'time,level,message,"n o",id,\n',
        [*(c.replace("\\n", "\n") for c in CELLS["csv"].split()), "", " x "],
        ",",
    ),
    "tsv": (
        delimited.FORM,
        "timestamp\tmessage\tvalue\r\n",
        [*CELLS["tsv"].split(), "", "a b", '"x\ty"'],
        "\t",
    ),
}


def made(engine: Any, form: Any, data: bytes, few: int) -> tuple[dict[int, Any], list[int]]:
    """The rows by position and the places of bad lines; times of ingest are left out."""
    with mock.patch.object(transform, "FEW", few):
        found = Transformer(lambda: engine, form, "o").run(Chunk(data, 0), final=True)
    table = found.table.to_pylist() if found.table is not None else []
    for row in table:
        row["data"] = parsed(row["data"])
        if row["time"] > dt.datetime(2025, 6, 1, tzinfo=dt.UTC):
            row["time"] = None
        del row["ingested_at"]
    return {row["position"]: row for row in table}, [b.position for b in found.bad]
