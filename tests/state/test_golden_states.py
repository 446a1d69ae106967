"""The golden lake of saved states: every later version verifies it and restores what it holds."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

import lakelog
from lakelog.chunks import state_files
from lakelog.state.catalog import StateCatalog
from lakelog.state.restore import restore_state
from tests.golden import states


@pytest.mark.parametrize("name", states.STATES)
def test_a_golden_state_of_index_format_2_is_restored(name: str, tmp_path: Path) -> None:
    """Pipes, holes, names that are no UTF-8 and names of one link, from files that are kept."""
    with tarfile.open(states.LAKE) as archive:
        archive.extractall(tmp_path, filter="data")
    home = tmp_path / "restored"
    with lakelog.open(str(tmp_path / "lake"), create=False) as lake:
        assert lake.verify().problems == ()
        (record,) = StateCatalog(lake).find(name).directories
        restore_state(lake, name, to=str(home))
        data = state_files.read_file(lake.store.paths.state_file(record.index, ".json.zst"))
    # What is kept is of format 2, whatever this version writes.
    assert b'"format":2' in state_files.unseal(data, record.index)
    assert states.facts(home) == json.loads(states.ANSWERS.read_text("utf-8"))[name]
