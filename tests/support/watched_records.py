"""What several tests use: watching when things go wrong."""

from __future__ import annotations

from collections import Counter

import lakelog
from lakelog.audit.audit import audit
from tests.support.watching import Place, stored


def proven(lake: lakelog.Lake, place: Place) -> None:
    """Every line that was written is stored once, and the audit says so."""
    assert stored(lake) == Counter(place.written)
    proof = audit(lake.store, lake.branch_name, lake.engine, [str(place.root)])
    assert not [file for file in proof.files if file.wrong]
