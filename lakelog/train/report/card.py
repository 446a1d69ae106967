"""README.md of an export: a dataset card as the Hugging Face hub and `datasets` read it."""

from __future__ import annotations

import json
from typing import Any

from lakelog.libraries import pa
from lakelog.train import losses, tokenizer
from lakelog.train.recipe import Recipe
from lakelog.train.report import report
from lakelog.train.tables import JsonMap

_TASKS = {
    "messages": "text-generation",
    "text": "text-generation",
    "preference": "text-generation",
    "classification": "text-classification",
}
_SIZES = (
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"),
    (100_000_000, "10M<n<100M"),
)


def documents(
    recipe: Recipe, manifest: JsonMap, certificate: JsonMap, schema: pa.Schema
) -> dict[str, str]:
    """Return the text of every document of a set, by file name: each is of recipe, manifest,
    certificate and columns alone.

    A check can therefore regenerate and compare them: a modified card may direct a loader
    elsewhere.
    """
    if "erased" in manifest:  # by the key of each erasure, the events that the set no longer has
        certificate = {**certificate, "erased": manifest["erased"]}
    return {
        "certificate.json": json.dumps(certificate, indent=1, ensure_ascii=False) + "\n",
        "README.md": card(recipe, manifest, schema),
        **report.texts(manifest, certificate),
    }


def card(recipe: Recipe, manifest: JsonMap, schema: pa.Schema) -> str:
    """Return the card. Strings are quoted as JSON, which is valid YAML."""
    splits = manifest["splits"]
    rows = sum(facts["rows"] for facts in splits.values())
    size = sum(facts["bytes"] for facts in splits.values())
    title = recipe.card["title"] or recipe.name
    head = ["---"]
    if recipe.card["license"]:
        head.append(f"license: {_yaml_string(recipe.card['license'])}")
    head.append(f"pretty_name: {_yaml_string(title)}")
    if recipe.kind in _TASKS:
        head += ["task_categories:", f"- {_TASKS[recipe.kind]}"]
    head += ["size_categories:", f"- {next((w for n, w in _SIZES if rows < n), '100M<n<1B')}"]
    # Explicit paths, so that the files in lineage/ are never taken for data.
    head += ["configs:", "- config_name: default", "  data_files:"]
    for split in splits:
        head += [f"  - split: {split}", f"    path: data/{split}-*.parquet"]
    # Features are declared: the Parquet files do not contain the list of a label's classes.
    features = _features(schema, "  ", manifest["quality"]["classes"])
    head += ["dataset_info:", "  features:", *features, "  splits:"]
    for split, facts in splits.items():
        head += [
            f"  - name: {split}",
            f"    num_bytes: {facts['bytes']}",
            f"    num_examples: {facts['rows']}",
        ]
    head += [f"  download_size: {size}", f"  dataset_size: {size}", "---", ""]
    return "\n".join(head) + "\n" + _body(recipe, manifest, title, rows)


def _body(recipe: Recipe, manifest: JsonMap, title: str, rows: int) -> str:
    split_rows = "\n".join(
        f"| {split} | {facts['rows']:,} | {facts['tokens']:,} | {len(facts['files'])} |"
        for split, facts in manifest["splits"].items()
    )
    left_out = ", ".join(f"{n:,} by {why}" for why, n in manifest["left_out"].items() if n)
    redacted = ", ".join(
        f"{n:,} {target}" for target, n in manifest["redaction"]["found"].items() if n
    )
    group = manifest["roles"]["group"]
    lines = [f"# {title}", ""]
    # The body states only what the manifest knows, so that a check can generate it again and
    # compare.
    if recipe.card["description"]:
        lines += [recipe.card["description"], ""]
    lines += [
        f"{rows:,} rows of shape `{recipe.kind}`, made by lakelog from snapshot",
        f"`{manifest['snapshot']}`.",
        "",
        f"| split | rows | tokens ({tokenizer.words(manifest)}) | files |",
        "|---|--:|--:|--:|",
        split_rows,
        "",
        *(f"- Warning: {warning}." for warning in report.warnings(manifest)),
        f"- Groups: {f'`{group}`; a group is in one split only' if group else 'none'}.",
        f"- Temporal cutoff: {manifest['fence'] or 'none'}.",
        f"- Left out: {left_out or 'nothing'}.",
        f"- Not kept: {losses.sentence(manifest['losses']) or 'nothing'}.",
        f"- Redacted: {redacted or 'nothing'}.",
        f"- Leak certificate: {'clean' if manifest['clean'] else 'LEAKS FOUND'}, see"
        " `certificate.json`; `lakelog train check` recomputes it from these files.",
        "- How it is balanced, how long its texts are, what changed since the last export:"
        " `report.md`.",
        "- How to make it again: `lakelog train rebuild` with `recipe.toml` and `manifest.json`.",
        "",
    ]
    return "\n".join(lines)


def _features(schema: pa.Schema, indent: str, classes: dict[str, list[str]]) -> list[str]:
    lines: list[str] = []
    for field in schema:
        names = classes.get(field.name)
        lines.append(f"{indent}- name: {_yaml_string(field.name)}")
        if names is None:
            lines += _type_lines("dtype", field.type, f"{indent}  ")
            continue
        # The files hold the texts of a label, which `datasets` numbers as it loads them.
        lines += [f"{indent}  dtype:", f"{indent}    class_label:", f"{indent}      names:"]
        numbered = enumerate(map(_yaml_string, names))
        lines += [f"{indent}        '{number}': {name}" for number, name in numbered]
    return lines


def _type_lines(key: str, arrow_type: Any, indent: str) -> list[str]:
    """The lines of a type, as `datasets` writes features in YAML: `dtype`, `list` or `struct`; a
    list of records is `list` with the fields below it."""
    if pa.types.is_struct(arrow_type):
        fields = pa.schema(list(arrow_type))
        return [f"{indent}{'struct' if key == 'dtype' else key}:", *_features(fields, indent, {})]
    if pa.types.is_list(arrow_type) or pa.types.is_large_list(arrow_type):
        outer = [] if key == "dtype" else [f"{indent}{key}:"]
        inner = indent if key == "dtype" else f"{indent}  "
        return [*outer, *_type_lines("list", arrow_type.value_type, inner)]
    return [f"{indent}{key}: {_dtype(arrow_type)}"]


def _dtype(arrow_type: object) -> str:
    name = str(arrow_type)
    name = {"double": "float64", "float": "float32", "date32[day]": "date32"}.get(name, name)
    # A plain null would be no type.
    return _yaml_string(name) if {*"[("} & {*name} or name == "null" else name


def _yaml_string(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)
