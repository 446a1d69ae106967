"""Write a day of a web server's access log and of its machine's system log, with an incident.

python data/logs.py --requests 40000 --seed 7 DIRECTORY

From 14:02 to 14:31 the disk of the upload service is full: uploads fail with 507, retries pile up,
and searches, which share the worker pool, become slow. The same seed gives the same bytes.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

DAY = datetime(2026, 10, 30, tzinfo=UTC)
BEGINS, ENDS = DAY + timedelta(hours=14, minutes=2), DAY + timedelta(hours=14, minutes=31)
_RHYTHM = [2, 1, 1, 1, 1, 2, 4, 7, 10, 12, 12, 11, 9, 10, 11, 10, 9, 8, 7, 7, 6, 5, 4, 3]
_REQUESTS = [
    (40, "GET", "/v1/episodes/{n}", 12, 4_200),
    (25, "POST", "/v1/search", 80, 1_900),
    (15, "GET", "/health", 1, 2),
    (12, "POST", "/v1/uploads", 220, 310),
    (8, "GET", "/feed.xml", 9, 18_000),
]
_AGENTS = ["PodApp/4.2 (iOS)", "PodApp/4.1 (Android)", "curl/8.5.0", "feedbot/2"]
_QUIET = [
    (6, "cron[{n}]", "(root) CMD (run-parts /etc/cron.hourly)"),
    (5, "systemd[1]", "Started Session {n} of user deploy."),
    (3, "sshd[{n}]", "Accepted publickey for deploy from 10.0.0.{few} port {n} ssh2"),
    (2, "kernel", "TCP: request_sock_TCP: Possible SYN flooding on port 443. Sending cookies."),
]
_LOUD = [
    (5, "uploads[4711]", "cannot write /srv/uploads/{n}.part: No space left on device"),
    (2, "uploads[4711]", "retrying in {few} s, {n} uploads wait"),
    (1, "kernel", "EXT4-fs warning (device sdb1): ext4_da_write_begin: delayed allocation failed"),
]


def main() -> None:
    """Read count, seed and directory from the command line, and write both logs."""
    parser = argparse.ArgumentParser(description="Write an access log and a system log of a day.")
    parser.add_argument("--requests", type=int, default=40_000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("directory", type=Path)
    given = parser.parse_args()
    given.directory.mkdir(parents=True, exist_ok=True)
    rng = random.Random(given.seed)
    (given.directory / "access.log").write_text("".join(accesses(rng, given.requests)))
    (given.directory / "syslog").write_text("".join(messages(rng, given.requests // 20)))


def accesses(rng: random.Random, count: int) -> Iterator[str]:
    """Yield lines in nginx's combined format, with the seconds that each request took behind."""
    for moment in _moments(rng, count):
        bad = BEGINS <= moment < ENDS
        weights = [
            weight * (3 if bad and "upload" in path else 1) for weight, _, path, *_ in _REQUESTS
        ]
        _, method, path, ms, size = rng.choices(_REQUESTS, weights)[0]
        status = 200
        taken = ms * rng.lognormvariate(0, 0.4)
        if bad and "upload" in path:
            status, taken = rng.choices([507, 504, 200], [8, 1, 1])[0], taken * 12
        elif bad and "search" in path:
            status, taken = rng.choices([200, 503], [9, 1])[0], taken * 9
        elif rng.random() < 0.004:
            status = rng.choice([404, 404, 499, 500])
        user = f"10.1.{rng.randrange(8)}.{rng.randrange(250)}"
        length = size if status < 400 else 162
        yield (
            f"{user} - - [{moment:%d/%b/%Y:%H:%M:%S +0000}]"
            f' "{method} {path.format(n=rng.randrange(9000))} HTTP/1.1" {status} {length}'
            f' "-" "{rng.choice(_AGENTS)}" {taken / 1000:.3f}\n'
        )


def messages(rng: random.Random, count: int) -> Iterator[str]:
    """Yield lines as rsyslog writes them."""
    for moment in _moments(rng, count):
        bad = BEGINS <= moment < ENDS
        kinds = _LOUD if bad and rng.random() < 0.9 else _QUIET
        _, program, text = rng.choices(kinds, [kind[0] for kind in kinds])[0]
        numbers = {"n": rng.randrange(1000, 9000), "few": rng.randrange(2, 60)}
        line = f"{program}: {text}".format(**numbers)
        yield f"{moment:%Y-%m-%dT%H:%M:%S}+00:00 web-1 {line}\n"


def _moments(rng: random.Random, count: int) -> list[datetime]:
    hours = rng.choices(range(24), _RHYTHM, k=count)
    return sorted(DAY + timedelta(hours=hour, seconds=rng.uniform(0, 3600)) for hour in hours)


if __name__ == "__main__":
    main()
