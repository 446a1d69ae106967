"""Whether a store keeps its word: a name that is taken is refused, and what is stored is read.

All that decides between two pushes is `put_new`. A store that takes the request and ignores its
condition acknowledges both, and one of them is lost without a word. So it is tried, one name after
the other and by several threads at once, before a service is pushed to for the first time.
"""

from __future__ import annotations

import contextlib
import functools

from lakelog.disk import disk
from lakelog.errors import LakelogError, TransferRefused
from lakelog.remotes import remote as remotes
from lakelog.remotes.remote import Remote

_ROUNDS, _MORE_ROUNDS = 2, 3
_RACERS = 4


def require(remote: Remote) -> None:
    """Refuse a store that does not decide who takes a name. Raises TransferRefused, Unreachable."""
    if not decides(remote):
        raise TransferRefused(
            f"{remote.url}: {remote.deciding} does not refuse a name that is taken (If-None-Match),"
            " so that of two pushes one could be lost: use a store that does; or, if one machine"
            f" alone pushes there, name it {remote.url}?single-writer"
        )


def decides(remote: Remote, rounds: int = _ROUNDS, racers: int = _RACERS) -> bool:
    """Whether a store decides who takes a name, tried so often by so many at once. Raises
    TransferRefused, Unreachable."""
    faults = _faults(remote, rounds, racers)
    # Once may be a server of one process under a load that no two pushes make.
    return faults == 0 or (faults == 1 and _faults(remote, _MORE_ROUNDS, _RACERS) == 0)


def _faults(remote: Remote, rounds: int, racers: int) -> int:
    """Return how many names were given twice."""
    # In a folder of a lake that no reader looks at.
    name = f"cache/probe-{disk.random_hex(8)}"
    keys = [f"{name}-{number}" for number in range(rounds)]
    try:
        return sum(_faults_of(remote, key, racers) for key in keys)
    finally:
        # Who may not delete leaves a few bytes.
        with contextlib.suppress(LakelogError, OSError):
            remote.remove_all(keys)


def _faults_of(remote: Remote, key: str, racers: int) -> int:
    """Return 1 if a name was given to several at once, and more if it was when it was long
    taken."""
    values = [disk.random_hex().encode() for _ in range(racers)]
    # By the store's word: `put_new` would look who has the name, which is read once, at the end.
    answers = dict(remotes.in_parallel(functools.partial(_try_new, remote, key), values))
    if not any(answers.values()):
        # The winner's answer was lost, or each was refused for the sake of another (S3's 409).
        answers = dict(remotes.in_parallel(lambda v: remotes.put_new(remote, key, v), values))
    is_late = _try_new(remote, key, b"late")
    winners = [value for value, is_new in answers.items() if is_new]
    return 2 * is_late + (winners != [remotes.read(remote, key)])


def _try_new(remote: Remote, key: str, value: bytes) -> bool:
    return remotes.retrying(lambda: remote.try_new(key, value))
