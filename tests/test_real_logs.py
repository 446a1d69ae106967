"""Every real log: as many events as it has, and no line that a person would call a log line lost.

The files live beside the repository, in ../shared/data; without them these tests are skipped.
"""

from __future__ import annotations

import pytest

import lakelog
from lakelog.ingest.audit import audit
from lakelog.ingest.formats import known
from lakelog.ingest.records import joins
from tests.test_text_files import FACTS, SHARED

pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared sample files are not here")
FOLDERS = ("services/", "web/", "loghub/", "lnav/", "auditd/", "zeek/", "rotated/", "cloudtrail/")
QUARANTINED = {
    "lnav/logfile_invalid_json.json": (1, "a JSON line that was cut off"),
    "lnav/logfile_invalid_utf8.0": (1, "bytes that are no UTF-8, kept as they are"),
}
"""The few lines that are in quarantine for good, and why."""
HEADED = ("csv", "zeek", "w3c")
"""Formats whose headers are no events."""


def logs() -> list[str]:
    """The logs among the files."""
    return [name for name in FACTS if name.startswith(FOLDERS)]


@pytest.mark.parametrize("name", logs())
def test_no_log_line_is_in_quarantine(lake: lakelog.Lake, name: str) -> None:
    """Each line is an event, or part of one; an audit finds each once."""
    facts, report = FACTS[name], lake.ingest(str(SHARED / name))
    assert report.quarantined == QUARANTINED.get(name, (0, ""))[0]
    (file,) = report.files
    if not file.format:
        assert facts["bytes"] == 0
        return
    form = known.named(file.format)
    single = not joins(form) and not getattr(form, "MANY", False) and form.NAME not in HEADED
    full = facts["lines"] - facts["blank_lines"]
    if single and not file.left:
        assert report.events + report.quarantined == full
    assert report.events + report.quarantined <= full
    (checked,) = audit(lake.store, lake.branch_name, lake.engine, []).files
    assert checked.wrong == 0
