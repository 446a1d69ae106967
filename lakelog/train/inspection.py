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

from lakelog.libraries import duckdb, pa, pq
from lakelog.train import agreement, leaks, provenance, scratch
from lakelog.train.dataset import MANIFEST, RECIPE, Dataset, Inventory, SetFault, load
from lakelog.train.leaks import FILE_CHECKS, Certificate, Leak
from lakelog.train.report import card
from lakelog.train.scratch import parquet
from lakelog.train.shapes import chat_exports

_BATCH = 4_096
_SHOWN = 20


def inspect(path: str, against: str | None, near: float | None, spill: str) -> Certificate:
    """Check a set, or one against another, and return what was found as a certificate.

    `near` is a similarity from 0 to 1 in place of the recipe's, `spill` the directory for what does
    not fit in memory. The files may come from anybody: the engine that decodes them reaches nothing
    else. Raises ExportRefused for a directory without a set.
    """
    dataset, inventory, faults = load(path)
    other_set = None
    if against is not None:
        other_set, _, other_faults = load(against)
        faults += [SetFault(f.check, f"{against}: {f.fault}") for f in other_faults]
    faults += [SetFault("files", fault) for fault in _files(inventory, dataset)]
    # Without a set that can be queried there is nothing to compare; the faults so far say why.
    if dataset is None or (against is not None and other_set is None):
        return _certificate(faults)
    for checked in (dataset, other_set) if other_set else (dataset,):
        faults += [SetFault("recipe", fault) for fault in agreement.with_recipe(checked)]
    faults += [SetFault("rows", fault) for fault in agreement.with_files(dataset, inventory)]
    # The queries below name columns of the recipe, and would fail instead of reporting.
    if any("no column" in f.fault for f in faults):
        return _certificate(faults)
    # Bounded by the set's size: a file that decodes to much more than it stores may fill neither
    # the memory nor the disk.
    spill_bytes = 2_000_000_000 + 8 * inventory.bytes_on_disk
    paths = [*dataset.paths, *(other_set.paths if other_set else [])]
    # From here on the engine decodes files of unknown origin, so it can reach them and nothing
    # else.
    con = scratch.connect_isolated(paths, spill, spill_bytes)
    faults += _run_guarded(
        con,
        dataset,
        lambda: [SetFault("rows", fault) for fault in agreement.with_rows(con, dataset)],
    )
    certificates: list[Certificate] = []
    faults += _run_guarded(
        con, dataset, lambda: _leaks(con, dataset, other_set, near, certificates)
    )
    certificate = certificates[0] if certificates else Certificate({}, ())
    # The documents state the verdict at the recipe's own threshold for this set alone; with other
    # parameters they cannot be compared.
    if other_set is None and near is None and certificates and dataset.manifest.get("quality"):
        fault = _run_guarded(con, dataset, lambda: _documents(dataset, inventory, certificate))
        faults += fault
    return _certificate(faults, certificate)


def _certificate(faults: list[SetFault], certificate: Certificate | None = None) -> Certificate:
    """Return one certificate of faults and leaks; only the first faults of a kind are named."""
    findings: list[Leak] = []
    for check in FILE_CHECKS:
        descriptions = [f.fault for f in faults if f.check == check]
        findings += [Leak(check, 1, description) for description in descriptions[:_SHOWN]]
        if unnamed := len(descriptions) - _SHOWN:
            findings += [Leak(check, unnamed, f"{unnamed:,} more")] if unnamed > 0 else []
    checks, leaks_ = (certificate.checks, certificate.leaks) if certificate else ({}, ())
    return Certificate({**checks, **FILE_CHECKS}, (*leaks_, *findings))


def _run_guarded(
    con: duckdb.DuckDBPyConnection, dataset: Dataset, work: Callable[[], Iterable[SetFault]]
) -> list[SetFault]:
    """Return the findings of `work`; where files cannot be decoded, those files."""
    try:
        return list(work())
    except (duckdb.Error, pa.ArrowException, ValueError, TypeError, KeyError) as error:
        # Running out of memory is reported by `sandbox`, which knows the limit.
        if isinstance(error, (duckdb.OutOfMemoryException, pa.ArrowMemoryError)):
            raise MemoryError from None
        damaged = [SetFault("files", fault) for fault in _undecodable(con, dataset)]
        reason = " ".join(str(error).split())[:200]
        return damaged or [SetFault("files", f"the rows cannot be checked: {reason}")]


def _undecodable(con: duckdb.DuckDBPyConnection, dataset: Dataset) -> Iterable[str]:
    """Decode each file separately to name the damaged ones."""
    for name in dataset.footers:
        source = parquet([f"{dataset.path}/{name}"])
        try:
            con.sql(f"SELECT bit_xor(hash(t)) FROM {source} t").fetchall()
        except duckdb.Error as error:
            yield f"{name} cannot be decoded: {' '.join(str(error).split())[:200]}"


def _leaks(
    con: duckdb.DuckDBPyConnection,
    dataset: Dataset,
    other_set: Dataset | None,
    near: float | None,
    certificates: list[Certificate],
) -> list[SetFault]:
    certificates.append(leaks.find(con, dataset, other_set, near=near))
    if other_set is None and near is None and dataset.manifest["clean"] != certificates[0].clean:
        return [SetFault("manifest", f"{MANIFEST}: clean is not what the rows give")]
    return []


def _files(inventory: Inventory, dataset: Dataset | None) -> Iterable[str]:
    """Files that differ from the manifest, are missing, unlisted, or not regular files."""
    yield from inventory.faults
    if dataset is None:
        return
    stated = dataset.manifest["files"]
    for name, facts in stated.items():
        if name not in inventory.sizes:
            yield f"{name} is missing"
        elif (
            # Sizes first: they cost nothing, and a file of another size need not be hashed.
            inventory.sizes[name] != facts["bytes"]
            or provenance.sha256(inventory.path(name)) != facts["sha256"]
        ):
            yield f"{name} was changed"
    yield from (
        f"{n} is not in the manifest" for n in inventory.sizes if n not in (*stated, MANIFEST)
    )
    if RECIPE in inventory.sizes and RECIPE not in stated:
        yield f"{RECIPE} is not in the manifest"


def _documents(
    dataset: Dataset, inventory: Inventory, certificate: Certificate
) -> Iterable[SetFault]:
    """Documents that differ from those generated from recipe, manifest and rows.

    Only a set of this version is compared: another one may word its documents otherwise.
    """
    # Another version may word its documents differently, which is no forgery.
    if dataset.manifest["versions"].get("lakelog") != provenance.versions(dataset.recipe).get(
        "lakelog"
    ):
        return
    schema = next(f.schema for n, f in dataset.footers.items() if n.startswith("data/"))
    contents = card.documents(dataset.recipe, dataset.manifest, certificate.record(), schema)
    expected = {*contents, MANIFEST, RECIPE, *dataset.footers}
    for name, content in contents.items():
        data = content.encode()
        if inventory.read(name, len(data)) != data:
            yield SetFault("documents", f"{name} is not what the manifest and the rows give")
    for dialect in dataset.recipe.shape["also"] or ():
        for split in dataset.files:
            name = f"{dialect}/{split}.jsonl"
            expected.add(name)
            if name not in inventory.sizes or _dialect(
                dataset, split, dialect
            ) != provenance.sha256(inventory.path(name)):
                yield SetFault("documents", f"{name} has not the conversations of the rows")
    for name in inventory.sizes:
        if name not in expected:
            yield SetFault("documents", f"{name} is no file of a training set")


def _dialect(dataset: Dataset, split: str, dialect: str) -> str:
    """The SHA-256 of the regenerated JSON lines of a split."""
    digest = hashlib.sha256()
    for path in dataset.files[split]:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(_BATCH):
                digest.update(chat_exports.lines(batch, dialect))
    return digest.hexdigest()
