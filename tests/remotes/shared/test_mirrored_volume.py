"""A bucket that a directory mirrors, as a volume: the suite of all volumes, and what is its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from lakelog.errors import TransferRefused
from lakelog.paths import KEYS, Paths
from lakelog.remotes.directory import DirectoryRemote
from lakelog.remotes.shared import bucket
from lakelog.remotes.shared.mirrored_volume import MirroredVolume
from lakelog.volume import Volume
from tests.support.volume_suite import VolumeSuite


def mirrored(root: Path) -> MirroredVolume:
    """Return the volume of a new directory, with a bucket beside it."""
    there = DirectoryRemote(str(root / "bucket"))
    lake_id = bucket.join(there)[0]["lake"]
    for folder in Paths(str(root / "here")).directories():
        Path(folder).mkdir(parents=True, exist_ok=True)
    return MirroredVolume(str(root / "here"), str(root / "bucket"), lake_id)


class TestMirroredVolume(VolumeSuite):
    """A directory of files as the bucket."""

    @pytest.fixture
    def volume(self, tmp_path: Path) -> Volume:
        """An empty bucket, and an empty directory."""
        return mirrored(tmp_path / "shared")


def test_a_tag_that_the_bucket_has_comes_here_when_its_name_is_refused(tmp_path: Path) -> None:
    one = mirrored(tmp_path)
    two = MirroredVolume(str(tmp_path / "two"), one.url, one._lake_id)
    (tmp_path / "two" / "refs" / "tags").mkdir(parents=True)
    one.create(KEYS.tag("v1"), b"one")
    with pytest.raises(FileExistsError):
        two.create(KEYS.tag("v1"), b"two")
    assert two.read(KEYS.tag("v1")) == b"one"


@pytest.mark.parametrize(
    "url", ["ssh://host/lake", "oci://host/lake", "s3://bucket/lake?single-writer"]
)
def test_a_place_that_cannot_decide_races_is_no_bucket(url: str) -> None:
    with pytest.raises(TransferRefused):
        bucket.checked_address(url)
