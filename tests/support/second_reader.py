"""A second reader of lakes, written from FORMAT.md alone: it shares no line with lakelog.

`rows(path, branch="main")` gives the rows of a branch, its tail included, `rows(path, tag="v1")`
those of a tag; `kind="quarantine"` the quarantined lines. A row is a dict of columns; times are
microseconds. It reads a lake at rest, so it never starts again (F12.3), or raises Damaged.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import struct
import zlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import zstandard

TEXTS = "type category source subject level message data id".split()
FIELDS = "tag sequence bytes raw events flags position when crc cursor".split()
SPELLINGS = {"timestamp": "time", "ts": "time", "@timestamp": "time"}
SPELLINGS |= {"event_type": "type", "content_type": "category", "item_id": "subject"}
EPOCH, MICRO = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)
Row = dict[str, Any]


class Damaged(Exception):
    """The bytes are not what FORMAT.md says; the message begins with the file."""


def rows(lake: str, branch: str = "main", tag: str = "", kind: str = "events") -> list[Row]:
    """Return the rows of a branch with its tail, or of a tag."""
    config = document(f"{lake}/lakelog.json")
    if config["format"] > 4 or {*config.get("requires", ())} - {"erasure", "protect"}:
        raise ValueError("the lake is newer than this reader")
    wals = read_wals(f"{lake}/wal/{encode(branch)}")
    heads, tags = f"{lake}/refs/heads/{encode(branch)}", f"{lake}/refs/tags/{encode(tag)}.json"
    ref = document(tags) if tag else find_head(heads)
    index = Path(f"{lake}/erasures/states.json")
    instead = document(str(index)) if index.exists() else {"states": {}}  # F23.1
    if names := instead.get("shards"):  # F23.7
        name = names[int(ref["snapshot"][: len(f"{len(names) - 1:x}")], 16)]
        instead = document(f"{lake}/erasures/{name}.shard")
    digest = instead["states"].get(ref["snapshot"], ref["snapshot"])
    state = (digest == ref["snapshot"] and ref["state"]) or manifest(lake, digest)
    rows_max = config["settings"].get("segment_rows", 1_000_000)
    tail = [] if tag else tail_rows(wals, ref["wal"], kind, heads, rows_max)
    known = id_keys(lake, state) if any(row.get("key") for row in tail) else set()
    return published(lake, state, kind) + deduped(tail, known, state["next_seq"])


def encode(name: str) -> str:  # F1.4
    plain = b"abcdefghijklmnopqrstuvwxyz0123456789._-"
    text = "".join(chr(b) if b in plain else f"%{b:02x}" for b in name.encode())
    return "%2e" + text[1:] if text.startswith(".") else text


def document(path: str) -> Row:  # F2, F7.11
    data, _, carried = Path(path).read_bytes().partition(b"\n")
    text = data[:-79] + b"}"
    if data[-79:] != f',"checksum":"{hashlib.sha256(text).hexdigest()}"}}'.encode():
        raise Damaged(f"{path}: checksum")
    if carried and hashlib.sha256(carried[:-1]).hexdigest() != json.loads(text)["snapshot"]:
        raise Damaged(f"{path}: the manifest in it")
    return json.loads(text) | {"state": carried and json.loads(carried)}


def read_wals(folder: str) -> dict[str, list[Row]]:
    """Return the files of each writer, in order of n (F12.1)."""
    found: dict[str, list[Row]] = {}
    for name in sorted(path.name for path in Path(folder).glob("*")):
        if re.fullmatch(r"[0-9a-f]{32}-\d{6}\.jsonl\.zst", name):
            found.setdefault(name[:32], []).append(read_wal(folder, name))
    return found


def read_wal(folder: str, name: str) -> Row:
    """Read the header and the good frames of a WAL (F3)."""
    path, data = f"{folder}/{name}", Path(folder, name).read_bytes()
    magic, size, tag, crc = struct.unpack_from("<II4sI", data.ljust(16, b"\0"))
    text = data[16 : 8 + size]
    if (magic, tag) != (0x184D2A5A, b"LKW1") or len(text) + 8 != size or zlib.crc32(text) != crc:
        raise Damaged(f"{path}: header")
    header, at, frames = json.loads(text), 8 + size, []
    if not path.endswith(
        f"/{encode(header['branch'])}/{header['writer']}-{header['n']:06}.jsonl.zst"
    ):
        raise Damaged(f"{path}: the header of another file")
    while found := read_frame(data, at):
        frames, at = [*frames, found[0]], found[1]
    rest, end = data[at:].rstrip(b"\0"), data[at : at + 24]
    ended = end[8:12] == b"LKE1" and zlib.crc32(end[:20]).to_bytes(4, "little") == end[20:]
    ended |= len(rest) <= 8 and rest.startswith(b"\x5e\x2a\x4d\x18")
    if not frames or (not ended and any(read_frame(data, at + i) for i in range(len(rest)))):
        raise Damaged(f"{path}: a frame at byte {at}")
    return {"path": path, "header": header, "frames": frames}


def read_frame(data: bytes, at: int) -> tuple[Row, int] | None:
    """Return the good frame at a byte and where it ends (F3.5)."""
    if data[at : at + 4] != b"\x5b\x2a\x4d\x18" or len(data) < at + 64:
        return None
    frame = dict(zip(FIELDS, struct.unpack_from("<4sQIIIIQqII", data, at + 8), strict=True))
    body, size, crc = at + 64 + frame["cursor"], frame["bytes"], frame["crc"]
    payload, fits = data[body : body + size], frame["tag"] == b"LKF1"
    fits &= zlib.crc32(data[at : body - 4]).to_bytes(4, "little") == data[body - 4 : body]
    if not fits or len(payload) != size or zlib.crc32(payload) != crc:
        return None
    text = zstandard.ZstdDecompressor().decompress(payload, max_output_size=frame["raw"])
    frame["lines"] = text.removesuffix(b"\n").split(b"\n")
    assert (len(text), len(frame["lines"])) == (frame["raw"], frame["events"])
    return frame, body + size


def hint(folder: str) -> str:  # F7.8
    """Return the name of the move's file that the hint of a branch names, or ""."""
    try:
        body = document(f"{folder}/hint")
    except (Damaged, FileNotFoundError):
        return ""
    return f"{body['number']:012d}.json" if folder.endswith(f"/{encode(body['branch'])}") else ""


def find_head(folder: str) -> Row:  # F11
    paths = sorted(p for p in Path(folder).glob("*") if re.fullmatch(r"\d{12}\.json", p.name))
    if hint(folder) > (paths[-1].name if paths else ""):
        raise Damaged(f"{folder}/{hint(folder)}: the move is missing")
    head = document(str(paths[-1])) if paths else {"op": "delete"}
    if head["op"] == "delete":
        raise LookupError(f"{folder}: no such branch")
    return head


def watermarks(folder: str, writer: str) -> list[int]:
    """Return all watermarks of a writer, in packed moves too (F7.9)."""
    lines = [path.read_bytes() for path in Path(folder).glob("0*.json")]
    for path in Path(folder).glob("packed-*"):
        lines += zstandard.decompress(path.read_bytes()[:-44]).splitlines()
    marks = [json.loads(line.split(b"\n")[0])["wal"] for line in lines if line[:9] == b'{"number"']
    return [mark[writer] for mark in marks if writer in mark]


def tail_rows(
    wals: dict[str, list[Row]], marks: dict[str, int], kind: str, folder: str, rows_max: int
) -> list[Row]:
    """Return the rows above the watermarks, with what dedupe needs (F12.3 to F12.5)."""
    found, frames, begun = [], list[Row](), {}
    for writer, files in wals.items():
        header, arrived = files[0]["header"], 0
        begun[writer] = min(f["header"]["started"] for f in files), writer
        start = mark = marks.get(writer, header["first"] - 1)
        while writer not in marks and start in header["doubtful"]:
            start -= 1
        if writer not in marks and start >= max([0, *(w + 1 for w in watermarks(folder, writer))]):
            raise Damaged(f"{files[0]['path']}: a file before it is missing")
        for frame in above(files, mark):
            arrived = max(arrived, frame["when"])
            frames.append(frame | {"writer": writer, "arrival": (arrived, writer)})
    for frame in in_sealing_order(frames, begun, rows_max):
        if bool(frame["flags"] & 4) == (kind == "quarantine"):
            for index, line in enumerate(frame["lines"]):
                row = json.loads(line) if frame["flags"] & 4 else parse(line, frame["flags"])
                row["order"] = (frame["when"], frame["writer"], frame["sequence"], index)
                place = {"origin": frame["writer"], "position": frame["position"] + index}
                version = row.pop("version", None)
                if frame["flags"] & 8 and version:  # F13.6
                    place = {"origin": f"stream:{row['subject']}", "position": int(version)}
                found.append({"ingested_at": frame["when"], **place, **row})
    return found


def in_sealing_order(frames: list[Row], begun: dict[str, Any], rows_max: int) -> list[Row]:
    """Return frames segment by segment, in each writer by writer (F12.5)."""
    segments, rows, size = list[list[Row]](), rows_max, 0
    for frame in sorted(frames, key=lambda f: (*f["arrival"], f["sequence"])):
        rows, size = rows + frame["events"], size + frame["raw"]
        if rows > rows_max or size > 256_000_000:
            segments, rows, size = [*segments, []], frame["events"], frame["raw"]
        segments[-1].append(frame)
    return [
        frame
        for segment in segments
        for frame in sorted(segment, key=lambda f: (begun[f["writer"]], f["sequence"]))
    ]


def above(files: list[Row], mark: int) -> list[Row]:  # F12.4
    frames = {f["sequence"]: f for file in reversed(files) for f in file["frames"]}
    doubtful = {s for file in files for s in file["header"]["doubtful"]}
    goal = max([mark, *frames, *(file["header"]["first"] - 1 for file in files)])
    wanted = [s for s in range(mark + 1, goal + 1) if s in frames or s not in doubtful]
    if not frames.keys() >= set(wanted):
        raise Damaged(f"{files[0]['path']}: frames are missing")
    return [frames[s] for s in wanted]


def parse(line: bytes, flags: int) -> Row:
    """Return the columns of a line, and its identity key (F3.13, F13)."""
    head, found, data = line.decode().partition(',"data":')
    given = json.loads(head + "}" if found else head).items()
    row = {SPELLINGS.get(name, name): value for name, value in given}
    given_id = f"{row.get('source') or ''}\0{row['id']}" if row.get("id") else None
    key = row.get("key") or (given_id and hashlib.sha256(given_id.encode()).hexdigest()[:24])
    row["data"] = data[:-1] if found and data != "null}" else None
    row["time"] = (datetime.fromisoformat(row["time"]) - EPOCH) // MICRO
    columns = {c: row.get(c) for c in ("time", *TEXTS)}
    return {**columns, "key": flags & 1 and key, "version": row.get("version")}


def deduped(tail: list[Row], known: set[str], seq: int) -> list[Row]:
    """Leave out rows whose key came before (F12.6), and what only dedupe needed; number them."""
    late_first = sorted(tail, key=lambda row: row["order"], reverse=True)
    first = {row.get("key"): row["order"] for row in late_first} | dict.fromkeys(known)
    kept = [r for r in tail if not r.get("key") or first[r["key"]] == r["order"]]
    bare = [{k: r[k] for k in r.keys() - {"key", "order"}} for r in kept]
    return [r | {"seq": n} if "type" in r else r for n, r in enumerate(bare, seq)]


def named(lake: str, kind: str, digest: str, end: str, size: int | None = None) -> bytes:
    path = Path(lake, kind, digest[:2], digest + end)
    data = path.read_bytes() if path.exists() else b""
    if hashlib.sha256(data).hexdigest() != digest or size not in (None, len(data)):
        raise Damaged(f"{path}: it is missing, or its digest or length is wrong")
    return data


def manifest(lake: str, digest: str, size: int | None = None) -> Row:
    return json.loads(zstandard.decompress(named(lake, "manifests", digest, ".json.zst", size)))


def id_keys(lake: str, state: Row) -> set[str]:  # F5
    runs = [(named(lake, "ids", r["digest"], ".ids", r["bytes"]), r["count"]) for r in state["ids"]]
    parts = [(struct.unpack_from(f"<{n}Q{n}I", data, 64), n) for data, n in runs]
    return {f"{part[i]:016x}{part[n + i]:08x}" for part, n in parts for i in range(n)}


def published(lake: str, state: Row, kind: str) -> list[Row]:
    """Return the rows of a manifest's live segments (F6.6, F12.7)."""
    pages = [manifest(lake, p["digest"], p["bytes"])["entries"] for p in state["pages"]]
    live: dict[str, Row] = {}
    for entry in (e for part in [*pages, state["tail"]] for e in part):
        if "segment" in (entry.get("add"), entry.get("del")):
            live.pop(entry["key"], None)
            live |= {entry["key"]: entry} if entry.get("add") and entry["kind"] == kind else {}
    found: list[Row] = []
    for entry in live.values():
        data = named(lake, "segments", entry["key"], ".parquet", entry["bytes"])
        file = pq.ParquetFile(io.BytesIO(data))
        schema = json.loads((file.metadata.metadata or {}).get(b"lakelog.fields", b"{}"))
        for index, row in enumerate(file.read().to_pylist()):
            if (fields := row.pop("fields", None)) is not None:
                row["data"] = payload({"kind": "object", **schema}, fields, schema["spaced"])
            row |= {k: (v - EPOCH) // MICRO for k, v in row.items() if isinstance(v, datetime)}
            if entry["layout"] == "arrival" and kind == "events":
                row["seq"] = entry["seq"][0] + index
            found.append(row)
    return found


def payload(member: Row, value: Any, spaced: bool) -> str:
    """Return the JSON text of a value in a typed segment (F4.7, F4.8)."""
    kind, comma = member["kind"], ", " if spaced else ","
    if kind == "object" and value is not None:
        shown = [m for m in member["members"] if m["null"] or value[m["name"]] is not None]
        texts = [(string(m["name"]), payload(m, value[m["name"]], spaced)) for m in shown]
        return "{" + comma.join(f"{n}:{' ' * spaced}{t}" for n, t in texts) + "}"
    if value is None:
        return "null"
    if kind == "list":
        return "[" + comma.join(payload(member["members"][0], v, spaced) for v in value) + "]"
    if kind == "number" and value == int(value) and abs(value) < 2**53:
        return str(int(value))
    if kind == "words":
        return string(" ".join(value))
    if kind == "numbers":
        numbers = iter(value.values())
        parts = (p if isinstance(p, str) else f"{next(numbers):0{p}}" for p in member["pieces"])
        return string("".join(parts))
    texts = {"text": string, "bool": lambda v: str(v).lower(), "json": str, "int": str}
    return texts.get(kind, repr)(value)


def string(text: str) -> str:
    plain = json.dumps(text, ensure_ascii=False)
    return re.sub(r"\\(u00..|.)", lambda m: "\\" + m[1][:1] + m[1][1:].upper(), plain)
