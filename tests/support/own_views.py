"""What several tests use: a lake's own views."""

from __future__ import annotations

BUSIEST = """-- name: busiest
-- version: 1
-- about: Events by source.
-- params: type text = null; at_least int = 1
-- key: source
-- map
SELECT source, count(*) AS events FROM segment WHERE $type IS NULL OR type = $type GROUP BY source
-- merge
SELECT source, sum(events) AS events FROM partials GROUP BY source
-- finish
SELECT source, events FROM state WHERE events >= $at_least ORDER BY events DESC, source
"""
