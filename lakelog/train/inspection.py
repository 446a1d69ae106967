"""Checking a set of unknown origin: its form, files and consistency, then its leaks.

    manifest  the form and size of every value        rows       against recipe and manifest
    files     every file is listed, plain, unchanged   documents  card, report and certificate
    recipe    the manifest says what the recipe says   ...        the leaks, see `leaks`

Nothing out of the set becomes SQL but quoted names of columns, and the engine reaches the listed
shards alone. `sandbox` runs all of this in a process whose memory is bounded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from lakelog.runtime.lazy import Lazy
from lakelog.train import agreement, documents, leaks, provenance, scratch
from lakelog.train.dataset import MANIFEST, RECIPE, Dataset, Fault, load
from lakelog.train.inventory import Inventory
from lakelog.train.leaks import FILE_CHECKS, Certificate, Leak
from lakelog.train.scratch import parquet
from lakelog.train.shapes import chat_files

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa
    import pyarrow.parquet as pq
else:
    duckdb = Lazy("duckdb")
    pa = Lazy("pyarrow")
    pq = Lazy("pyarrow.parquet")

_BATCH = 4_096
_SHOWN = 20


def inspect(path: str, against: str | None, near: float | None, spill: str) -> Certificate:
    """Check a set, or one against another. Raises ExportRefused for a directory without a set."""
    here, listed, faults = load(path)
    there = None
    if against is not None:
        there, _, others = load(against)
        faults += [Fault(f.kind, f"{against}: {f.words}") for f in others]
    faults += [Fault("files", words) for words in _files(listed, here)]
    # Without a set that can be queried there is nothing to compare; the faults so far say why.
    if here is None or (against is not None and there is None):
        return _certificate(faults)
    for own in (here, there) if there else (here,):
        faults += [Fault("recipe", words) for words in agreement.with_recipe(own)]
    faults += [Fault("rows", words) for words in agreement.with_files(here, listed)]
    # The queries below name columns of the recipe, and would fail instead of reporting.
    if any("no column" in f.words for f in faults):
        return _certificate(faults)
    # Bounded by the set's size: a file that decodes to much more than it stores may fill neither
    # the memory nor the disk.
    spill_bytes = 2_000_000_000 + 8 * listed.stored
    paths = [*here.paths, *(there.paths if there else [])]
    # From here on the engine decodes files of unknown origin, so it can reach them and nothing
    # else.
    con = scratch.connect_isolated(paths, spill, spill_bytes)
    faults += _run_guarded(
        con, here, lambda: [Fault("rows", words) for words in agreement.with_rows(con, here)]
    )
    certificates: list[Certificate] = []
    faults += _run_guarded(con, here, lambda: _leaks(con, here, there, near, certificates))
    certificate = certificates[0] if certificates else Certificate({}, ())
    # The documents state the verdict at the recipe's own threshold for this set alone; with other
    # parameters they cannot be compared.
    if there is None and near is None and certificates and here.manifest.get("quality"):
        words = _run_guarded(con, here, lambda: _documents(here, listed, certificate))
        faults += words
    return _certificate(faults, certificate)


def _certificate(faults: list[Fault], certificate: Certificate | None = None) -> Certificate:
    """Return one certificate of faults and leaks; only the first faults of a kind are named."""
    findings: list[Leak] = []
    for kind in FILE_CHECKS:
        words = [f.words for f in faults if f.kind == kind]
        findings += [Leak(kind, 1, text) for text in words[:_SHOWN]]
        if rest := len(words) - _SHOWN:
            findings += [Leak(kind, rest, f"{rest:,} more")] if rest > 0 else []
    checks, leaks_ = (certificate.checks, certificate.leaks) if certificate else ({}, ())
    return Certificate({**checks, **FILE_CHECKS}, (*leaks_, *findings))


def _run_guarded(
    con: duckdb.DuckDBPyConnection, here: Dataset, work: Callable[[], Iterable[Fault]]
) -> list[Fault]:
    """Return the findings of `work`; where files cannot be decoded, those files."""
    try:
        return list(work())
    except (duckdb.Error, pa.ArrowException, ValueError, TypeError, KeyError) as error:
        # Running out of memory is reported by `sandbox`, which knows the limit.
        if isinstance(error, (duckdb.OutOfMemoryException, pa.ArrowMemoryError)):
            raise MemoryError from None
        named = [Fault("files", words) for words in _undecodable(con, here)]
        text = " ".join(str(error).split())[:200]
        return named or [Fault("files", f"the rows cannot be checked: {text}")]


def _undecodable(con: duckdb.DuckDBPyConnection, here: Dataset) -> Iterable[str]:
    """Decode each file separately to name the damaged ones."""
    for name in here.footers:
        source = parquet([f"{here.path}/{name}"])
        try:
            con.sql(f"SELECT bit_xor(hash(t)) FROM {source} t").fetchall()
        except duckdb.Error as error:
            yield f"{name} cannot be decoded: {' '.join(str(error).split())[:200]}"


def _leaks(
    con: duckdb.DuckDBPyConnection,
    here: Dataset,
    there: Dataset | None,
    near: float | None,
    certificates: list[Certificate],
) -> list[Fault]:
    certificates.append(leaks.find(con, here, there, near=near))
    if there is None and near is None and here.manifest["clean"] != certificates[0].clean:
        return [Fault("manifest", f"{MANIFEST}: clean is not what the rows give")]
    return []


def _files(listed: Inventory, here: Dataset | None) -> Iterable[str]:
    """Files that differ from the manifest, are missing, unlisted, or not regular files."""
    yield from listed.faults
    if here is None:
        return
    stated = here.manifest["files"]
    for name, facts in stated.items():
        if name not in listed.sizes:
            yield f"{name} is missing"
        elif (
            # Sizes first: they cost nothing, and a file of another size need not be hashed.
            listed.sizes[name] != facts["bytes"]
            or provenance.sha256(listed.path(name)) != facts["sha256"]
        ):
            yield f"{name} was changed"
    yield from (f"{n} is not in the manifest" for n in listed.sizes if n not in (*stated, MANIFEST))
    if RECIPE in listed.sizes and RECIPE not in stated:
        yield f"{RECIPE} is not in the manifest"


def _documents(here: Dataset, listed: Inventory, certificate: Certificate) -> Iterable[Fault]:
    """Documents that differ from those generated from recipe, manifest and rows.

    Only a set of this version is compared: another one may word its documents otherwise.
    """
    # Another version may word its documents differently, which is no forgery.
    if here.manifest["versions"].get("lakelog") != provenance.versions(here.recipe).get("lakelog"):
        return
    schema = next(f.schema for n, f in here.footers.items() if n.startswith("data/"))
    texts = documents.texts(here.recipe, here.manifest, certificate.record(), schema)
    expected = {*texts, MANIFEST, RECIPE, *here.footers}
    for name, text in texts.items():
        data = text.encode()
        if listed.read(name, len(data)) != data:
            yield Fault("documents", f"{name} is not what the manifest and the rows give")
    for dialect in here.recipe.shape["also"] or ():
        for split in here.files:
            name = f"{dialect}/{split}.jsonl"
            expected.add(name)
            if name not in listed.sizes or _dialect(here, split, dialect) != provenance.sha256(
                listed.path(name)
            ):
                yield Fault("documents", f"{name} has not the conversations of the rows")
    for name in listed.sizes:
        if name not in expected:
            yield Fault("documents", f"{name} is no file of a training set")


def _dialect(here: Dataset, split: str, dialect: str) -> str:
    """The SHA-256 of the regenerated JSON lines of a split."""
    digest = hashlib.sha256()
    for path in here.files[split]:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(_BATCH):
                digest.update(chat_files.lines(batch, dialect))
    return digest.hexdigest()
