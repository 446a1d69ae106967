"""What several tests use: the certificate."""

from __future__ import annotations

FENCE = {"group": "subject", "before": "2026-09-01T03:00:00Z"}
