"""Saved states against restic in the same run: first save, second after 1 % changed, and the size.

The state has large files of text and of noise, middle ones, and many small ones; 1 % of its bytes
are changed: small files replaced, others appended, a stretch of a large file overwritten and one
inserted. Both sides run as commands, with their compression as it comes, on the same directory.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measure import Scale, directory, process, progress
from benchmarks.report import Row, Target

_MB = 1 << 20
_WORDS = [
    b"state",
    b"event",
    b"lake",
    b"true",
    b"0.25",
    b'"id":',
    b"null",
    b"model",
    b"user",
    b"17",
]
_SAVE = ["-m", "lakelog", "--quiet", "--lake"]


def against_restic(scale: Scale) -> list[Row]:
    """Save a state twice with lakelog and with restic, in turn."""
    if shutil.which("restic") is None:
        return [Row("state save against restic", "s", [], note="no restic")]
    first: dict[str, list[float]] = {"lakelog": [], "restic": []}
    second: dict[str, list[float]] = {"lakelog": [], "restic": []}
    size: dict[str, list[float]] = {"lakelog": [], "restic": []}
    more: list[float] = []
    for number in range(min(scale.rounds, 3)):
        with directory() as root:
            home = root / "state"
            _grow(home, scale.state_mb * _MB, number)
            # A state that rests: neither side may rely on times that are too near.
            time.sleep(0.1)
            stored = {}
            names = ["lakelog", "restic"] if number % 2 else ["restic", "lakelog"]
            for name in names:
                _cached(home)
                first[name].append(_save(name, root))
                stored[name] = _bytes(root / name)
                size[name].append(stored[name] / _MB)
            _change(home, scale.state_mb * _MB // 100, number)
            for name in names:
                _cached(home)
                second[name].append(_save(name, root))
            more.append(100 * (_bytes(root / "lakelog") - stored["lakelog"]) / stored["lakelog"])
            progress(f"first {first}, second {second}, size {size}, more {more}")
    speed = [a / b for a, b in zip(first["lakelog"], second["lakelog"], strict=True)]
    # Rates, so that more is better as everywhere.
    one, two = ({n: [scale.state_mb / s for s in x[n]] for n in x} for x in (first, second))
    what = f"state save of {scale.state_mb:,} MB"
    return [
        Row(what, "MB/s", one["lakelog"], one["restic"], Target(">=", 0.8)),
        Row("after 1 % changed", "MB/s", two["lakelog"], two["restic"], Target(">=", 0.8)),
        Row("size", "MB", size["lakelog"], size["restic"], Target("<=", 1.1)),
        Row("the second stores more", "%", more, target=Target("<=", 3, "figure")),
        Row("and is faster", "x", speed, target=Target(">=", 5, "figure")),
    ]


def _save(name: str, root: Path) -> float:
    if name == "lakelog":
        command = [sys.executable, *_SAVE, str(root / name), "state", "save", "--dir"]
        return process([*command, str(root / "state")])[0]
    environment = {**os.environ, "RESTIC_PASSWORD": "x", "RESTIC_CACHE_DIR": f"{root}/cache"}
    restic = ["restic", "--quiet", "--repo", str(root / name)]
    if not (root / name).exists():
        subprocess.run([*restic, "init"], env=environment, check=True, stdout=subprocess.DEVNULL)
    began = time.perf_counter()
    subprocess.run([*restic, "backup", str(root / "state")], env=environment, check=True)
    return time.perf_counter() - began


def _grow(home: Path, size: int, seed: int) -> None:
    """Half of it in large files, a quarter in middle ones, a quarter in small ones."""
    dice = random.Random(seed)
    for kind, length, share in (
        ("large", 32 * _MB, 2),
        ("middle", 400_000, 4),
        ("small", 12_000, 4),
    ):
        length = min(length, size // 8)
        for number in range(size // share // length):
            path = home / f"{kind}{number % 40}" / f"f{number}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(_content(dice, length, number % 2 == 0))


def _content(dice: random.Random, length: int, is_noise: bool) -> bytes:
    if is_noise:
        return dice.randbytes(length)
    words = b" ".join(dice.choices([*_WORDS, *(b"%d" % n for n in range(3000))], k=length // 16))
    return (
        (words * (length // len(words) + 1))[:length]
        if length < 64_000
        else b"".join(_varied(dice, words, length))
    )


def _varied(dice: random.Random, words: bytes, length: int) -> Iterator[bytes]:
    """Lines of words from random places, each with a number of its own."""
    done = 0
    while done < length:
        at = dice.randrange(len(words) - 200)
        line = (b"%x " % dice.getrandbits(64) + words[at : at + 180] + b"\n")[: length - done]
        done += len(line)
        yield line


def _change(home: Path, size: int, seed: int) -> None:
    dice = random.Random(-seed - 1)
    for kind, share in (("small", 4), ("middle", 4)):
        left = size // share
        paths = sorted(home.glob(f"{kind}*/*"))
        for number, path in enumerate(dice.sample(paths, len(paths))):
            if left <= 0:
                break
            length = path.stat().st_size
            path.write_bytes(_content(dice, length, number % 2 == 0))
            left -= length
    large = sorted(home.glob("large*/*"))
    with open(large[0], "r+b") as file:
        file.seek(file.seek(0, os.SEEK_END) // 3)
        file.write(_content(dice, size // 4, True))
    whole = large[-1].read_bytes()
    middle = len(whole) // 2
    large[-1].write_bytes(whole[:middle] + _content(dice, size // 4, False) + whole[middle:])


def _cached(home: Path) -> None:
    """Read everything, so that neither side finds a colder cache than the other."""
    os.sync()
    for path in home.rglob("*"):
        if path.is_file():
            path.read_bytes()


def _bytes(root: Path) -> int:
    return sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
