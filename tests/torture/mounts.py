"""File systems of our own: images on loop devices and small tmpfs, below a scratch folder."""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.support.requirements import find

SHUTDOWN = 0x8004587D
"""Stops a file system at once, without writing its log: the power cut of ext4 and XFS."""
MAKERS = {"ext4": ["mkfs.ext4", "-q", "-F"], "xfs": ["mkfs.xfs", "-q", "-f"]}
OPTIONS = {"ext4": ["", "commit=1", "data=writeback", "data=journal"], "xfs": ["", "logbsize=256k"]}
SIZES = {"ext4": 64 << 20, "xfs": 320 << 20}


def run(*command: str) -> None:
    """Run a program of the system; raises OSError with what it said."""
    program = find(command[0]) or command[0]
    done = subprocess.run([program, *command[1:]], capture_output=True, text=True)
    if done.returncode:
        raise OSError(done.returncode, f"{' '.join(command)}: {done.stderr.strip()}")


def make(kind: str, image: Path) -> None:
    """Make a file system in a sparse file."""
    with open(image, "wb") as file:
        file.truncate(SIZES[kind])
    run(*MAKERS[kind], str(image))


@contextlib.contextmanager
def tmpfs(place: Path, size: int) -> Iterator[Path]:
    """Mount a tmpfs of so many bytes."""
    place.mkdir()
    run("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place))
    try:
        yield place
    finally:
        run("umount", str(place))


def grow(place: Path, size: int) -> None:
    """Give a tmpfs more room."""
    run("mount", "-o", f"remount,size={size}", str(place))


def release(folder: Path) -> None:
    """Unmount what is mounted below a folder, whatever is still open."""
    lines = Path("/proc/self/mounts").read_text().splitlines()
    # Spaces stand as octal numbers there.
    mounted = [line.split(" ")[1].replace("\\040", " ") for line in lines]
    for place in reversed([m for m in mounted if m.startswith(f"{folder}/")]):
        with contextlib.suppress(OSError):
            run("umount", "-l", place)


class Volume:
    """A file system in an image, mounted at `place` while it has power."""

    def __init__(self, kind: str, root: Path, options: str) -> None:
        self.image, self.place = root / "image", root / "disk"
        self._options = ",".join(filter(None, ["loop", options]))
        self.place.mkdir()
        make(kind, self.image)
        self.mount()

    def mount(self) -> None:
        """Switch the power on; the file system replays its log."""
        run("mount", "-o", self._options, str(self.image), str(self.place))

    def cut(self) -> None:
        """Cut the power: nothing that is not on the disk will get there."""
        fd = os.open(self.place, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, SHUTDOWN, struct.pack("I", 2))
        finally:
            os.close(fd)

    def umount(self) -> None:
        """Take the dead file system away."""
        run("umount", str(self.place))

    def close(self) -> None:
        """Unmount if it is mounted, whatever is still open."""
        if os.path.ismount(self.place):
            with contextlib.suppress(OSError):
                run("umount", str(self.place))
                return
            run("umount", "-l", str(self.place))
