"""Training sets that somebody doctored: each case changes one thing and mends what hides it.

A case is a function of a set's directory and dice. What it plants never is a leak of the set's own;
`mend` then does what a careful forger does: counts, figures, documents and every SHA-256 fit again.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import random
import re
import struct
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lakelog import train
from lakelog.train import dataset, leaks, scratch
from lakelog.train import recipe as recipes
from lakelog.train.report import card, quality
from tests.support import trainsets, witness
from tests.support.tree import ROOT

Case = Callable[[Path, random.Random], None]
MEMORY_MAX = 1_000_000_000
"""Bytes that a check may take, with the process that it starts."""
_COMMAND = """
import json, resource, subprocess, sys
done = subprocess.run([sys.executable, "-m", "lakelog", "train", "check", sys.argv[1], "--json"],
                      capture_output=True, text=True)
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
print(json.dumps([done.returncode, done.stdout, done.stderr, peak]))
"""
NOTES = "SELECT * FROM events WHERE type = 'note'"
TURNS = "SELECT * FROM events WHERE type = 'turn'"
FENCE = {"group": "subject", "before": "2026-09-01T03:00:00Z"}


def build(home: Path) -> list[Path]:
    """Make three clean sets: with a fence and a predecessor, of conversations, with labels."""
    with trainsets.lake_of(home / "lake", trainsets.notes(400, 120)) as lake:
        made = trainsets.recipe("text", NOTES, shape={"keep": ["level"]}, split=FENCE)
        train.export(lake, made, home / "before")
        lake.append(trainsets.notes(100, 120, seed=3, first=400))
        train.export(lake, made, home / "fenced")
        lake.append(turns(160))
        shape = {"role": "data.role", "content": "data.content", "also": ["openai", "sharegpt"]}
        train.export(lake, trainsets.recipe("messages", TURNS, shape=shape), home / "chats")
        shape = {"label": "level", "keep": ["data.tag"]}
        split, card = {"group": "subject"}, {"title": "Demo", "license": "mit"}
        made = trainsets.recipe("classification", NOTES, shape=shape, split=split, card=card)
        train.export(lake, {**made, "dedupe": {"exact": True}}, home / "labelled")
    return [home / "fenced", home / "chats", home / "labelled"]


def turns(count: int) -> list[dict[str, Any]]:
    """Return conversations of two messages each."""
    return [
        {
            "type": "turn",
            "subject": f"chat{n // 2}",
            "time": f"2026-09-02T{n // 60:02d}:{n % 60:02d}:00Z",
            "data": {"role": ("user", "assistant")[n % 2], "content": text},
        }
        for n, text in enumerate(trainsets.texts(count, 9))
    ]


def payloads(outside: Path) -> list[str]:
    """SQL that would write, read or load something outside."""
    at = str(outside)
    return [
        f"(SELECT count(*) FROM read_text('{at}/canary.txt'))",
        f"text); COPY (SELECT 1) TO '{at}/written.csv'; --",
        f"\" FROM read_csv('{at}/canary.txt')); ATTACH '{at}/written.db' AS x; --",
        f"x', '{at}/canary.txt",
        f"../../{outside.name}/canary.txt",
        f"{at}/canary.txt",
        f"'; LOAD '{at}/canary.txt'; INSTALL httpfs; --",
    ]


@dataclass(frozen=True)
class Checked:
    """What `lakelog train check` answered: its exit code, the findings, and the bytes it took."""

    code: int
    findings: list[str]
    peak: int

    @property
    def is_refused(self) -> bool:
        """Whether it named a finding, with the exit code for that, in bounded memory."""
        return self.code == 3 and all([*self.findings, self.findings]) and self.peak < MEMORY_MAX


def checked(path: Path) -> Checked:
    """Check a set by the command. Its peak is that of the process which took most.

    A small process stands between: what a process took is handed on to those it starts.
    """
    command = [sys.executable, "-c", _COMMAND, str(path)]
    told = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, timeout=240, check=True)
    code, out, errors, peak = json.loads(told.stdout)
    assert "Traceback" not in errors, errors
    return Checked(code, [leak["words"] for leak in json.loads(out)["leaks"]], peak)


@contextlib.contextmanager
def contained(path: Path, outside: Path, name: str) -> Iterator[None]:
    """Require that nothing outside is touched meanwhile but a temporary directory beside the set,
    which is gone at the end, and nothing in it written."""
    before = sorted(path.parent.iterdir())  # what is linked to is beside the set
    folders = dict.fromkeys((path.parent, path, path / "data"), witness.WRITES)
    with witness.watching({outside: witness.TOUCHES, **folders}) as touched:
        yield
    beside = f"{path.parent}/.{path.name}.tmp-"
    assert all(place.startswith(beside) for place in touched), f"{name} touched {touched[:5]}"
    assert sorted(path.parent.iterdir()) == before, name


def plant_bomb(make: Callable[[Path], None], path: Path) -> None:
    """Make a bomb of a set, in a process that takes its memory with it."""
    start = "from pathlib import Path; from tests.support import doctored"
    plant = f"{start}; doctored.{make.__name__}(Path({str(path)!r}))"
    subprocess.run([sys.executable, "-c", plant], cwd=ROOT, check=True, timeout=240)


# --- mending ------------------------------------------------------------------------------------


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((path / "manifest.json").read_text())
    return found


def write(path: Path, manifest: dict[str, Any]) -> None:
    text = json.dumps(manifest, indent=1, ensure_ascii=False) + "\n"
    (path / "manifest.json").write_text(text)


def sign(path: Path) -> None:
    """Make every size and SHA-256 of the manifest fit the files."""
    manifest = read(path)
    for name in manifest["files"]:
        data = (path / name).read_bytes()
        manifest["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    for side, split in manifest["splits"].items():
        names = split["files"]
        split["bytes"] = sum((path / "data" / n).stat().st_size for n in names)
        with contextlib.suppress(Exception):
            split["rows"] = len(trainsets.rows(path, side))
    write(path, manifest)


def mend(path: Path) -> None:
    """Make counts, figures, certificate and documents fit the rows, and then sign."""
    sign(path)
    found, _, _ = dataset.load(str(path))
    if found is not None:
        manifest = found.manifest
        con = scratch.connect(str(path.parent))
        with contextlib.suppress(Exception):
            manifest["quality"].update(quality.measure(con, found))
            for side, counts in manifest["quality"]["lengths"]["counts"].items():
                counts[0] += manifest["splits"][side]["rows"] - sum(counts)
            before = manifest["previous"]
            drift = quality.drift(manifest["quality"], before["quality"] if before else None)
            manifest["quality"]["drift"] = drift
            certificate = leaks.find(con, found).record()
            manifest["clean"] = True
            certificate.update(clean=True, leaks=[])
            schema = next(f.schema for n, f in found.footers.items() if n.startswith("data/"))
            texts = card.documents(found.recipe, manifest, certificate, schema)
            for name, text in texts.items():
                (path / name).write_text(text)
        con.close()
        write(path, manifest)
    sign(path)


# --- strings ------------------------------------------------------------------------------------


def strings(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the place of every string of a document; of a name, as (..., '*', name)."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield (*at, "*", name)
            yield from strings(item, (*at, name))
    elif isinstance(value, list):
        for place, item in enumerate(value):
            yield from strings(item, (*at, place))
    elif isinstance(value, str):
        yield at


def replaced(value: Any, at: tuple[Any, ...], text: str) -> Any:
    """Return the document with another string, or another name, at a place."""
    if not at:
        return text
    if at[0] == "*":
        return {(text if name == at[1] else name): item for name, item in value.items()}
    made = list(value) if isinstance(value, list) else dict(value)
    made[at[0]] = replaced(value[at[0]], at[1:], text)
    return made


def in_manifest(at: tuple[Any, ...], text: str) -> Case:
    def case(path: Path, _: random.Random) -> None:
        write(path, replaced(read(path), at, text))

    return case


def in_recipe(section: str, key: str, text: str) -> Case:
    def case(path: Path, _: random.Random) -> None:
        """The recipe and the manifest's copy of it agree on the planted text."""
        manifest = read(path)
        planted = [text] if isinstance(manifest["recipe"][section].get(key), list) else text
        parsed = tomllib.loads((path / "recipe.toml").read_text())
        parsed.setdefault(section, {})[key] = planted
        toml = recipes._as_toml(parsed)
        (path / "recipe.toml").write_text(toml)
        manifest["recipe"][section][key] = planted
        manifest["recipe"]["sha256"] = hashlib.sha256(toml.encode()).hexdigest()
        write(path, manifest)
        sign(path)

    return case


def in_card(name: str, line: int, text: str) -> Case:
    def case(path: Path, _: random.Random) -> None:
        lines = (path / name).read_text().split("\n")
        place = line % len(lines)
        lines[place] = re.sub(r"(: |^).*$", lambda m: m[1] + text, lines[place], count=1)
        (path / name).write_text("\n".join(lines))
        sign(path)

    return case


# --- rows ---------------------------------------------------------------------------------------


def change(path: Path, side: str, work: Callable[[list[dict[str, Any]]], Any], seqs: Any) -> None:
    """Change the rows of a split and, in step, the events of its lineage."""
    trainsets.rewrite(path, side, work)
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = next(path.glob(f"lineage/{side}-*.parquet"))
    table = pq.read_table(file)
    pq.write_table(pa.Table.from_pylist(seqs(table.to_pylist()), table.schema), file)


def lying(path: Path, rng: random.Random, **roles: Any) -> None:
    """Let the manifest say that there is nothing to look for, or not."""
    manifest = read(path)
    if rng.random() < 0.7:
        manifest["roles"].update(roles)
        manifest["fence"] = None if "time" in roles else manifest["fence"]
    write(path, manifest)


def _with(rows: list[dict[str, Any]], place: int, **values: Any) -> list[dict[str, Any]]:
    rows[place].update(values)
    return rows


def moved(path: Path, rng: random.Random) -> None:
    """A row of train goes to test, with its lineage."""
    taken: list[Any] = []
    place = rng.randrange(20)

    def take(rows: list[Any]) -> list[Any]:
        taken.append(rows.pop(place))
        return rows

    change(path, "train", take, take)
    change(path, "test", lambda rows: [*rows, taken[0]], lambda rows: [*rows, taken[1]])
    lying(path, rng, group=None, time=None)
    mend(path)


def doubled(path: Path, rng: random.Random) -> None:
    """A row is there twice in its split, under the lineage of the first or another event."""
    place = rng.randrange(5)
    change(path, "train", lambda rows: [*rows, rows[place]], lambda rows: [*rows, rows[place]])
    lying(path, rng, content=["level"])
    mend(path)


def copied(path: Path, rng: random.Random) -> None:
    """A row of train is in test as well."""
    row = trainsets.rows(path, "train")[rng.randrange(20)]
    del row["side"]
    change(path, "test", lambda rows: [*rows, row], lambda rows: [*rows, {"events": [10**6]}])
    lying(path, rng, group=None, near=None, threshold=None)
    mend(path)


def future(path: Path, rng: random.Random) -> None:
    """A row of train happens after the test rows."""
    late = max(r["time"] for r in trainsets.rows(path, "test"))
    place = rng.randrange(20)
    trainsets.rewrite(path, "train", lambda rows: _with(rows, place, time=late))
    lying(path, rng, time=None)
    mend(path)


def nulls(path: Path, rng: random.Random) -> None:
    """Rows have no group, or no time."""
    key = rng.choice(["subject", "time"])
    side, place = rng.choice(["train", "test"]), rng.randrange(5)
    trainsets.rewrite(path, side, lambda rows: _with(rows, place, **{key: None}))
    lying(path, rng, **{"group" if key == "subject" else "time": None})
    mend(path)


def cased(path: Path, rng: random.Random) -> None:
    """A row of test is of a subject of train in other letters."""
    key = trainsets.rows(path, "train")[rng.randrange(20)]["subject"]
    other = rng.choice([key.upper(), key.title(), f" {key}", f"{key} "])

    def work(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{**rows[0], "subject": other}, *rows[1:]]

    trainsets.rewrite(path, "test", work)
    mend(path)


# --- files --------------------------------------------------------------------------------------


def shard(path: Path, rng: random.Random) -> Path:
    return rng.choice(sorted(path.glob("data/*.parquet")))


def unlisted(path: Path, rng: random.Random) -> None:
    """A file that no list has: plain, hidden, deep, a link, a pipe, or named as a shard."""
    kind = rng.randrange(6)
    if kind == 0:
        (path / "loader.py").write_text("import os")
    elif kind == 1:
        (path / ".hidden").write_text("x")
    elif kind == 2:
        (path / "data/deep").mkdir()
        (path / "data/deep/train-00000-of-00001.parquet").write_bytes(shard(path, rng).read_bytes())
    elif kind == 3:
        (path / "notes.txt").symlink_to(rng.choice(["/etc/passwd", "/dev/zero", "/"]))
    elif kind == 4:
        os.mkfifo(path / "data/train-00009-of-00010.parquet")
    else:
        (path / "data/test-00007-of-00008.parquet").write_bytes(shard(path, rng).read_bytes())


def linked(path: Path, rng: random.Random) -> None:
    """A listed file is a link out of the set, of the same bytes."""
    name = rng.choice(sorted(read(path)["files"]))
    target = path.parent / f"linked-{path.name}"
    os.replace(path / name, target)
    (path / name).symlink_to(target)


def dropped(path: Path, rng: random.Random) -> None:
    """A file is gone, from the list too or not."""
    manifest = read(path)
    name = rng.choice(sorted(manifest["files"]))
    (path / name).unlink()
    if rng.random() < 0.5:
        del manifest["files"][name]
        write(path, manifest)


def flipped(path: Path, rng: random.Random) -> None:
    """One bit of a shard is another one; where it is magic or the footer, the hashes are mended."""
    file = shard(path, rng)
    data = bytearray(file.read_bytes())
    mended = rng.random() < 0.3
    place = rng.choice([0, 3, len(data) - 1, len(data) - 6]) if mended else rng.randrange(len(data))
    data[place] ^= 1 << rng.randrange(8)
    file.write_bytes(bytes(data))
    if mended:
        sign(path)


def truncated(path: Path, rng: random.Random) -> None:
    """A shard ends early, or its middle is gone, and the hashes are mended."""
    file = shard(path, rng)
    data = file.read_bytes()
    cut = rng.randrange(len(data))
    middle = data[:4] + data[4 + rng.randrange(40, 400) :]
    file.write_bytes(rng.choice([data[:cut], data[: cut // 2], b"", middle]))
    sign(path)


# --- bombs --------------------------------------------------------------------------------------


def _table(path: Path, side: str) -> tuple[Path, Any]:
    import pyarrow.parquet as pq

    file = next(path.glob(f"data/{side}-*.parquet"))
    return file, pq.read_table(file)


def long_values(path: Path) -> None:
    """Sixty thousand rows that share one text of 20 MB: 1.2 TB of text."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    file, table = _table(path, "train")
    text = pa.array(["a b " * 5_000_000]).dictionary_encode()
    wide = pa.DictionaryArray.from_arrays(pa.array([0] * 60_000, pa.int32()), text.dictionary)
    columns = {f.name: wide if f.name == "text" else pa.nulls(60_000, f.type) for f in table.schema}
    # Without Arrow's own schema the column reads as plain text, as in every other file.
    pq.write_table(pa.table(columns), file, compression="zstd", store_schema=False)
    cheap(path)


def big_pages(path: Path) -> None:
    """A page of 700 MB of zeros in some kilobytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    file, table = _table(path, "train")
    size = 700_000_000
    ends = pa.py_buffer(struct.pack("ii", 0, size))
    text = pa.StringArray.from_buffers(1, ends, pa.py_buffer(bytes(size)))
    names = table.schema.names
    columns = {n: text if n == "text" else pa.nulls(1, table.schema.field(n).type) for n in names}
    pq.write_table(pa.table(columns), file, compression="zstd", use_dictionary=False)
    cheap(path)


def many_rows(path: Path) -> None:
    """Thirty million equal rows in some kilobytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    file, table = _table(path, "test")
    with pq.ParquetWriter(file, table.schema) as writer:
        for _ in range(30):
            nulls_ = {f.name: pa.nulls(1_000_000, f.type) for f in table.schema}
            writer.write_table(pa.table(nulls_, schema=table.schema), row_group_size=1_000_000)
    cheap(path)


def cheap(path: Path) -> None:
    """Mend hashes and sizes without reading rows."""
    manifest = read(path)
    for name in manifest["files"]:
        data = (path / name).read_bytes()
        manifest["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    write(path, manifest)


def deep_manifest(path: Path) -> None:
    (path / "manifest.json").write_text('{"format": 1, "roles": ' + "[" * 2_000_000)


def wide_manifest(path: Path) -> None:
    (path / "manifest.json").write_text('{"format": 1, "roles": [' + "[]," * 30_000_000 + "[]]}")


def deep_recipe(path: Path) -> None:
    (path / "recipe.toml").write_text("x = " + "[" * 100_000 + "]" * 100_000)


def huge_recipe(path: Path) -> None:
    with open(path / "recipe.toml", "ab") as file:
        file.truncate(1 << 40)


def huge_card(path: Path) -> None:
    with open(path / "README.md", "ab") as file:
        file.truncate(1 << 40)


def deep_certificate(path: Path) -> None:
    (path / "certificate.json").write_text("[" * 3_000_000)
    cheap(path)


BOMBS: list[Callable[[Path], None]] = [
    long_values,
    big_pages,
    many_rows,
    deep_manifest,
    wide_manifest,
    deep_recipe,
    huge_recipe,
    huge_card,
    deep_certificate,
]
FENCED: dict[str, Case] = {"future": future, "nulls": nulls, "cased": cased}
ROWS: dict[str, Case] = {"moved": moved, "doubled": doubled, "copied": copied}
FILES: dict[str, Case] = {
    "unlisted": unlisted,
    "linked": linked,
    "dropped": dropped,
    "flipped": flipped,
    "truncated": truncated,
}


def cases(sets: list[Path], outside: Path) -> list[tuple[str, Path, Case]]:
    """Return all cases, 300 and some, by name, with the set that each one changes."""
    fenced, _, labelled = sets
    texts = payloads(outside)
    found: list[tuple[str, Path, Case]] = []
    for set_ in (fenced, labelled):
        for n, at in enumerate(strings(read(set_))):
            if set_ == fenced or at[0] in ("recipe", "roles", "quality"):
                found.append(
                    (f"manifest of {set_.name} {at}", set_, in_manifest(at, texts[n % len(texts)]))
                )
    for section, keys in read(fenced)["recipe"].items():
        for key, value in keys.items() if isinstance(keys, dict) else ():
            if isinstance(value, (str, list)):
                case = in_recipe(section, key, texts[len(found) % 4])
                found.append((f"recipe {section}.{key}", fenced, case))
    for line in range(0, 40, 2):
        case = in_card("README.md", line, texts[line % len(texts)])
        found.append((f"card {line}", labelled, case))
    for name in ("certificate.json", "report.md", "report.html"):
        found.append((name, labelled, in_card(name, 3, texts[1])))
    for turn in range(12):
        found += [(f"{name} {turn}", fenced, case) for name, case in FENCED.items()]
        for name, case in ROWS.items():
            found.append((f"{name} {turn}", (fenced, labelled)[turn % 2], case))
        for name, case in FILES.items():
            found.append((f"{name} {turn}", sets[turn % 3], case))
    for make in BOMBS:
        case = functools.partial(plant_bomb, make)
        found.append((f"bomb {make.__name__}", fenced, lambda path, _, case=case: case(path)))
    return found
