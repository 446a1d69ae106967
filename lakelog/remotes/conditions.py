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

_ROUNDS = 3
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
    # In a folder of a lake that no reader looks at.
    name = f"cache/probe-{disk.random_hex(8)}"
    keys = [f"{name}-{number}" for number in range(rounds)]
    try:
        answers = [_answers(remote, key, racers) for key in keys]
    finally:
        for key in keys:
            # Who may not delete leaves a few bytes.
            with contextlib.suppress(LakelogError, OSError):
                remote.remove(key)
    # Once may be a server of one process under a load that no two pushes make.
    return not (
        any(is_late for is_late, _ in answers) or sum(twice for _, twice in answers) > rounds // 3
    )


def _answers(remote: Remote, key: str, racers: int) -> tuple[bool, bool]:
    """Whether a name that was long taken was given again, and one to several at once."""
    values = [disk.random_hex().encode() for _ in range(racers)]
    # Who is refused need not look who has it: that is read once, at the end.
    answers = dict(remotes.in_parallel(functools.partial(_put_new, remote, key), values))
    if not any(answers.values()):
        # The winner's answer was lost, or each was refused for the sake of another (S3's 409).
        answers = dict(remotes.in_parallel(lambda v: remotes.put_new(remote, key, v), values))
    is_late = _put_new(remote, key, b"late")
    winners = [value for value, is_new in answers.items() if is_new]
    return is_late, winners != [remotes.read(remote, key)]


def _put_new(remote: Remote, key: str, value: bytes) -> bool:
    return remotes.retrying(lambda: remote.put_new(key, value))
