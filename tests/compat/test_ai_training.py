"""Training sets from the AI log: what the older system logged, as rows a model learns from."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import lakelog
from lakelog import train

RECIPE = """
name = "choices"

[select]
sql = "SELECT * FROM events"

[shape]
kind = "decision"
decision = "decision"
outcome = ["outcome"]
options = "data.details.options"
chosen = "data.details.chosen"
reward = "data.details.reward"
window = "1d"

[split]
train = 1.0
"""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """The AI log of a program that made 60 decisions; the last one has no outcome yet."""
    path = tmp_path / "ai.log"
    logger = lakelog.get_ai_logger(path, source="agent")
    for n in range(60):
        decision = logger.ai_decision(
            "model", ["small", "large"], "small" if n % 3 else "large", 0.8, f"prompt of {n} words"
        )
        with logger.measure_operation("route"):
            pass
        if n < 59:
            decision.outcome("accepted" if n % 2 else "refused", reward=float(n % 2))
    logger.pattern_detected("retry storm", {"count": 7}, confidence=0.9)
    logger.flush()
    return path


def test_decisions_become_a_training_set(log: Path, lake: lakelog.Lake, tmp_path: Path) -> None:
    """Each decision is a row with its options, its choice and the reward of its outcome."""
    lake.ingest(log)
    (tmp_path / "choices.toml").write_text(RECIPE)
    train.export(lake, str(tmp_path / "choices.toml"), str(tmp_path / "choices"))
    rows = [
        row
        for file in sorted((tmp_path / "choices/data").glob("*.parquet"))
        for row in pq.read_table(file).to_pylist()
    ]
    assert len(rows) == 59
    assert {row["chosen"] for row in rows} == {"small", "large"}
    assert sum(float(row["reward"]) for row in rows) == 29.0
    assert all(list(row["options"]) == ["small", "large"] for row in rows)


def test_patterns_of_the_ai_log_are_rows_of_their_table(log: Path, lake: lakelog.Lake) -> None:
    """`omega.patterns` has what the AI logger detected."""
    lake.ingest(log)
    (row,) = lake.sql(
        "SELECT pattern_type, confidence, pattern_data FROM omega.patterns"
    ).fetchall()
    assert (row[0], row[1], json.loads(row[2])) == ("retry storm", 0.9, {"count": 7})
