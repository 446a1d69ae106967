"""A training set on disk, read as untrusted input: manifest, recipe, and the data files present.

The roles of columns come from the recipe, as in an export; those in the manifest are only compared.
`load` collects every fault, `open_set` raises the first one.

The regular files of a directory, listed without following links.
"""

from __future__ import annotations

import dataclasses
import json
import os
import stat
from dataclasses import dataclass

from lakelog.errors import ExportRefused, InvalidRecipe
from lakelog.export import GROUP_ROWS
from lakelog.libraries import pa, pq
from lakelog.train import manifest
from lakelog.train import recipe as recipes
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
    directory = scan(path)
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
    footers, _ = _footers(scan(path))
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
    return dataclasses.replace(parsed, name=facts["name"])


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


FILES_MAX = 30_000
DEPTH_MAX = 4


@dataclass(frozen=True)
class Inventory:
    """The regular files below `root`, by relative path, with sizes; `faults` names all else."""

    root: str
    sizes: dict[str, int]
    faults: tuple[str, ...]
    bytes_on_disk: int
    """Bytes that all of them take on disk; a file with holes takes less than its size."""

    def path(self, name: str) -> str:
        """Return the path of a listed file. Raises KeyError for one that is not listed."""
        if name not in self.sizes:
            raise KeyError(name)
        return f"{self.root}/{name}"

    def read(self, name: str, size_max: int) -> bytes | None:
        """Return the bytes of a listed file, at most one more than `size_max`; None if it is not
        there.

        A file that became a link since it was listed is not opened.
        """
        if name not in self.sizes:
            return None
        fd = os.open(f"{self.root}/{name}", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(fd, "rb") as file:
            return file.read(size_max + 1)


def scan(root: str) -> Inventory:
    """List a directory. Raises ExportRefused where there is none."""
    if not os.path.isdir(root):
        raise ExportRefused(f"{root}: not an export: not a directory")
    sizes: dict[str, int] = {}
    faults: list[str] = []
    bytes_on_disk = 0
    waiting = [("", 0)]
    # Bounded in depth and number: a directory from elsewhere may be endless.
    while waiting and len(sizes) + len(faults) <= FILES_MAX:
        folder, depth = waiting.pop()
        for entry in sorted(os.scandir(f"{root}/{folder}"), key=lambda e: e.name):
            name = f"{folder}{entry.name}"
            # Never through a link: it could lead to a device or out of the set.
            state = entry.stat(follow_symlinks=False)
            if stat.S_ISDIR(state.st_mode) and depth < DEPTH_MAX:
                waiting.append((f"{name}/", depth + 1))
            elif stat.S_ISREG(state.st_mode):
                sizes[name] = state.st_size
                bytes_on_disk += min(state.st_size, state.st_blocks * 512)
            else:
                faults.append(f"{name} is {_kind(state.st_mode)}, and is not opened")
    if waiting:
        faults.append(f"there are more than {FILES_MAX:,} files")
    return Inventory(root, dict(sorted(sizes.items())), tuple(faults), bytes_on_disk)


def _kind(mode: int) -> str:
    if stat.S_ISLNK(mode):
        return "a symbolic link"
    return "a directory too deep" if stat.S_ISDIR(mode) else "no plain file"
