"""How a notebook shows lakelog's objects: lakes, snapshots, moves, diffs, tags, results.

Almost all of them are dataclasses, so one table of names and values shows each, and a list of them
is a table with one row for each.
"""

from __future__ import annotations

import base64
import dataclasses
import re
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from lakelog.errors import LakelogError
from lakelog.lake import Lake
from lakelog.libraries import alt, vl_convert
from lakelog.pinned import PinnedLake
from lakelog.render import DisplayHead, micros, text

RECORDS = {
    "history.snapshot": "Snapshot HistoryEntry Diff",
    "refs.ref": "Tag Move",
    "maintain.stats": "Stats",
    "maintain.compact": "Compaction",
    "maintain.gc": "GcResult",
    "maintain.retention": "RetentionResult",
    "maintain.hotcopy": "HotCopy",
    "ingest.ingest": "IngestReport",
    "audit.audit": "Audit",
    "maintain.repair.checker": "Report",
    "maintain.repair.outcome": "RepairOutcome",
    "export.tables": "ExportResult",
    "sync.delta": "SyncStatus",
    "sync.syncer": "SyncResult",
    "consume.consume": "ConsumeResult",
    "state.saved_state": "SavedState",
    "state.state": "SaveResult",
    "state.restore": "Restored",
    "train.leaks": "Certificate",
    "train.trainingset": "TrainingExport",
    "train.rebuild": "RebuildResult",
}
_ROWS_MAX = 50
_TIMES = ("time", "saved_at", "captured_at", "synced_at", "state_time")
_IDS = ("id", "snapshot", "parent", "digest", "index")
_SHORT = 12
_RENDERER, _OF_ALTAIR, _SCALE = "lakelog", "mimetype", 1.5


def register(formatters: Any) -> None:
    """Show our objects as HTML, beside the text that they have anyway."""
    formatter = formatters["text/html"]
    formatter.for_type(Lake, lake_html)
    formatter.for_type(PinnedLake, lake_html)
    formatter.for_type(list, list_html)
    for module, names in RECORDS.items():
        for name in names.split():
            # By name: importing all of them would take a second.
            formatter.for_type_by_name(f"lakelog.{module}", name, record_html)


def lake_html(lake: Lake | PinnedLake) -> str:
    """Return a lake in numbers, or what is wrong with it."""
    name = lake.path if isinstance(lake, Lake) else f"snapshot {lake.id[:_SHORT]}"
    try:
        figures = _fields(lake.stats())
    except (LakelogError, OSError) as error:  # a display that fails is a page of stack
        figures = {"error": str(error)}
    return _pairs({"lake": name, **figures})


def record_html(record: object) -> str:
    """Return a dataclass as a table of its fields."""
    return _pairs(_fields(record))


def list_html(records: Sequence[object]) -> str | None:
    """Return a list of our dataclasses as a table, None for any other list."""
    some = records[:_ROWS_MAX]
    ours = some and all(
        dataclasses.is_dataclass(record)
        and not isinstance(record, type)
        and type(record) is type(some[0])
        and type(record).__module__.startswith("lakelog.")
        for record in some
    )
    if not ours:
        return None
    rows = list[dict[str, object]]()
    for record in some:
        rows.append({})
        for name, value in _fields(record).items():
            # The fields of a dataclass inside of it stand among its own.
            rows[-1] |= _fields(value) if dataclasses.is_dataclass(value) else {name: value}
    columns = list(rows[0])
    right = [isinstance(rows[0][name], (int, float)) for name in columns]
    cells = [[_shown(row.get(name)) for name in columns] for row in rows]
    remaining = len(records) - len(some)
    return DisplayHead(columns, cells, right).table() + (f"{remaining} more" if remaining else "")


def _pairs(values: Mapping[str, object]) -> str:
    rows = [(name, _shown(value)) for name, value in values.items()]
    return DisplayHead(("", ""), rows, (False, False)).table()


def _fields(record: Any) -> dict[str, object]:
    """Return the fields that people read: times as text, ids short."""
    values = {f.name: getattr(record, f.name) for f in dataclasses.fields(record) if f.repr}
    for name, value in values.items():
        if name in _TIMES and isinstance(value, int) and value > 0:
            values[name] = micros(value)
        elif name in _IDS and isinstance(value, str):
            values[name] = value[:_SHORT]
    return values


def _shown(value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, dict):
        return "\n".join(f"{name}: {_shown(member)}" for name, member in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(_shown(member) or "" for member in value[:_ROWS_MAX])
    if dataclasses.is_dataclass(value):
        fields = _fields(value).items()
        return ", ".join(f"{name} {_shown(member)}" for name, member in fields if member)
    return text(value)


def register_plots() -> None:
    """Have altair show images beside the plot, where both packages are installed.

    JupyterLab, VS Code and marimo draw Vega-Lite themselves. GitHub, nbconvert and notebooks
    without a network do not, and show the image.
    """
    if not (find_spec("altair") and find_spec("vl_convert")):
        return
    renderers: Any = alt.renderers
    renderers.enable(_OF_ALTAIR)
    draw = renderers.get()

    def bundle(spec: dict[str, object], **options: object) -> object:
        drawn = draw(spec, **options)
        data, metadata = drawn if isinstance(drawn, tuple) else (drawn, {})
        image: bytes = vl_convert.vegalite_to_png(spec, scale=_SCALE)
        # Altair 6 ends the type in `.json`, which notebooks do not take for JSON, nor save.
        data = {re.sub(r"\.json$", "+json", mime_type): value for mime_type, value in data.items()}
        return {**data, "image/png": base64.b64encode(image).decode()}, metadata

    renderers.register(_RENDERER, bundle)
    renderers.enable(_RENDERER)
