"""The documents of a set, each generated from recipe, manifest, certificate and columns alone.

A check can therefore regenerate and compare them: a modified card may direct a loader elsewhere.
"""

from __future__ import annotations

import json

from lakelog.libraries import pa
from lakelog.train.recipe import Recipe
from lakelog.train.report import card, report
from lakelog.train.tables import JsonMap


def texts(
    recipe: Recipe, manifest: JsonMap, certificate: JsonMap, schema: pa.Schema
) -> dict[str, str]:
    """Return the text of every document, by file name."""
    if "erased" in manifest:  # by the key of each erasure, the events that the set no longer has
        certificate = {**certificate, "erased": manifest["erased"]}
    return {
        "certificate.json": json.dumps(certificate, indent=1, ensure_ascii=False) + "\n",
        "README.md": card.card(recipe, manifest, schema),
        **report.texts(manifest, certificate),
    }
