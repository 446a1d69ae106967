"""A training set on disk, read as untrusted input: manifest, recipe, and the data files present.

The roles of columns come from the recipe, as in an export; those in the manifest are only compared.
`load` collects every fault, `open_set` raises the first one.
"""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass

from lakelog.errors import ExportRefused, InvalidRecipe
from lakelog.export import GROUP_ROWS
from lakelog.libraries import pa, pq
from lakelog.train import inventory, manifest
from lakelog.train import recipe as recipes
from lakelog.train.inventory import Inventory
from lakelog.train.recipe import SPLITS, Recipe
from lakelog.train.scratch import parquet
from lakelog.train.selection import text_of
from lakelog.train.shapes import shape
from lakelog.train.shards import SHARD_ROWS
from lakelog.train.tables import JsonMap

MANIFEST, RECIPE = "manifest.json", "recipe.toml"
SPLIT = "__split"
"""The column that says which split a row is of; an export refuses such names."""
_RECIPE_BYTES = 256_000
_MAGIC = b"PAR1"
_COLUMNS_MAX = 2_000


@dataclass(frozen=True)
class SetFault:
    """A fault of a set: which check found it, and a description that says where."""

    check: str
    fault: str


@dataclass(frozen=True)
class Footer:
    """The metadata of a Parquet file: rows of each row group, and columns."""

    groups: tuple[int, ...]
    schema: pa.Schema

    @property
    def rows(self) -> int:
        """Rows of the file."""
        return sum(self.groups)


@dataclass(frozen=True)
class Dataset:
    """A set that can be queried. `files` are the paths of each split, in order."""

    path: str
    manifest: JsonMap
    recipe: Recipe
    roles: JsonMap
    files: dict[str, list[str]]
    columns: tuple[str, ...]
    footers: dict[str, Footer]

    def source(self, columns: str, splits: tuple[str, ...] = SPLITS, mark: str = "") -> str:
        """SQL of some columns of some splits, with the column `__split`."""
        queries = [
            f"SELECT {text_of(mark + split)} AS {SPLIT}, {columns}"
            f" FROM {parquet(self.files[split])}"
            for split in splits
            if split in self.files
        ]
        return " UNION ALL ".join(queries)

    @property
    def paths(self) -> list[str]:
        """Every file that a query may read."""
        return [f"{self.path}/{name}" for name in self.footers]


def load(path: str) -> tuple[Dataset | None, Inventory, list[SetFault]]:
    """Read a set; if it is None, there is at least one fault.

    Raises ExportRefused for a directory without a manifest.
    """
    directory = inventory.scan(path)
    data = directory.read(MANIFEST, manifest.BYTES_MAX)
    if data is None:
        raise ExportRefused(f"{path}: not an export: it has no {MANIFEST}")
    # The manifest is checked first and alone: nothing else is read on behalf of a manifest that is
    # not well-formed.
    facts, descriptions = manifest.parse(data)
    faults = [SetFault("manifest", f"{MANIFEST}: {fault}") for fault in descriptions]
    if faults:
        return None, directory, faults
    try:
        recipe = _recipe(directory, facts)
    except InvalidRecipe as error:
        return None, directory, [SetFault("recipe", str(error))]
    # Files are those really in the directory, not those the manifest lists; `inspection` compares
    # the two.
    footers, faults = _footers(directory)
    files = {
        split: paths
        for split in SPLITS
        if (paths := [f"{path}/{n}" for n in footers if n.startswith(f"data/{split}-")])
    }
    if not files and not faults:
        faults = [SetFault("files", "there are no data files to check")]
    if faults:
        return None, directory, faults
    # `_footers` has verified that all files of a folder have equal columns, so any file can speak
    # for them.
    columns = tuple(next(f.schema.names for n, f in footers.items() if n.startswith("data/")))
    try:
        # From the recipe and not from the manifest: a forged manifest could hide the group column
        # from the leak check.
        roles = roles_of(recipe, columns)
    except ExportRefused as error:
        return None, directory, [SetFault("recipe", f"{RECIPE}: {error}")]
    return Dataset(path, facts, recipe, roles, files, columns, footers), directory, []


def open_set(path: str) -> Dataset:
    """Read a set. Raises ExportRefused for one that cannot be queried."""
    dataset, _, faults = load(path)
    if dataset is None:
        raise ExportRefused(f"{path}: {faults[0].fault}; see `lakelog train check`")
    return dataset


def from_export(path: str, facts: JsonMap, recipe: Recipe) -> Dataset:
    """The set that an export has just written and trusts; it has no recipe.toml yet."""
    footers, _ = _footers(inventory.scan(path))
    files = {
        split: [f"{path}/data/{n}" for n in facts_of_split["files"]]
        for split, facts_of_split in facts["splits"].items()
    }
    columns = tuple(next(f.schema.names for n, f in footers.items() if n.startswith("data/")))
    return Dataset(path, facts, recipe, facts["roles"], files, columns, footers)


def roles_of(recipe: Recipe, columns: tuple[str, ...]) -> JsonMap:
    """The roles of columns as the recipe gives them, in the types of JSON."""
    roles = shape.roles(recipe, list(columns))
    plain: JsonMap = json.loads(json.dumps(dataclasses.asdict(roles)))
    return plain


def _recipe(directory: Inventory, facts: JsonMap) -> Recipe:
    """The recipe of a set, with the name of the set."""
    data = directory.read(RECIPE, _RECIPE_BYTES)
    if data is None:
        raise InvalidRecipe(f"{RECIPE} is missing")
    # `read` returns one byte more than allowed, which is how a longer file shows.
    if len(data) > _RECIPE_BYTES:
        raise InvalidRecipe(f"{RECIPE}: more than {_RECIPE_BYTES:,} bytes")
    try:
        parsed = recipes.parse(data.decode(), RECIPE)
    except UnicodeDecodeError:
        raise InvalidRecipe(f"{RECIPE}: it is not UTF-8 text") from None
    except RecursionError:
        raise InvalidRecipe(f"{RECIPE}: nested too deeply") from None
    return recipes.with_name(parsed, facts["name"])


def _footers(directory: Inventory) -> tuple[dict[str, Footer], list[SetFault]]:
    """Read the footer of every data and lineage file; splits and their parts in order."""
    footers, faults = {}, []
    for split in SPLITS:
        for name in directory.sizes:
            folder, _, base = name.rpartition("/")
            if folder not in ("data", "lineage") or not base.startswith(f"{split}-"):
                continue
            footer = _footer(directory, name)
            if isinstance(footer, Footer):
                footers[name] = footer
            else:
                faults.append(footer)
    return footers, [*faults, *_unlike(footers)]


def _footer(directory: Inventory, name: str) -> Footer | SetFault:
    try:
        with open(directory.path(name), "rb") as start:
            if start.read(4) != _MAGIC:  # readers look at the end only
                return SetFault("files", f"{name} does not begin as a Parquet file does")
        # Only the footer is read; no page is decoded before the sizes are known to be plausible.
        with pq.ParquetFile(directory.path(name), memory_map=False) as file:
            facts, schema = file.metadata, file.schema_arrow
            groups = tuple(facts.row_group(n).num_rows for n in range(facts.num_row_groups))
    except (pa.ArrowException, OSError, ValueError) as error:
        return SetFault("files", f"{name} cannot be read: {' '.join(str(error).split())[:200]}")
    # More than an export writes would be a bomb: a run of equal rows costs no bytes on disk.
    if min(groups, default=0) < 0 or max(groups, default=0) > GROUP_ROWS:
        return SetFault("files", f"{name} has a row group of more than {GROUP_ROWS:,} rows")
    if sum(groups) > SHARD_ROWS or len(schema.names) > _COLUMNS_MAX:
        return SetFault("files", f"{name} has more rows or columns than a file of an export")
    reserved = [n for n in schema.names if n.startswith("__")]
    if reserved or len({n.lower() for n in schema.names}) < len(schema.names):
        return SetFault("files", f"{name} has column names that an export never writes")
    return Footer(groups, schema.remove_metadata())


def _unlike(footers: dict[str, Footer]) -> list[SetFault]:
    """The files whose columns differ from those of the first file of their folder."""
    folder_footers: dict[str, Footer] = {}
    return [
        SetFault("files", f"{name} has other columns than the other files")
        for name, footer in footers.items()
        if footer.schema != folder_footers.setdefault(os.path.dirname(name), footer).schema
    ]
