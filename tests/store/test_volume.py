"""A directory as a volume: refs and publishes stand on it as on any other."""

from __future__ import annotations

from pathlib import Path

import pytest

from lakelog.volume import DirectoryVolume, Volume
from tests.support.volume_suite import VolumeSuite


class TestDirectoryVolume(VolumeSuite):
    """The folders of a lake, as `init` makes them."""

    @pytest.fixture
    def volume(self, tmp_path: Path) -> Volume:
        for folder in ("refs/heads", "refs/tags", "manifests"):
            (tmp_path / "lake" / folder).mkdir(parents=True)
        return DirectoryVolume(str(tmp_path / "lake"))
