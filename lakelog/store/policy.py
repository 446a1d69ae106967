"""The policy of a lake: who may do what overwrites or deletes. `policy.toml` in the lake (F8.10).

    [allow]
    gc = ["ops@*"]                 # globs of authors, as the reflog has them
    rollback = ["ada@*", "ops@*"]
    default = []                   # of the operations that are not named; without it everybody

Without the file everybody may do everything. One that cannot be read allows nothing. It guards
people who use lakelog from mistakes, not the files from somebody who may write them.
"""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from lakelog.disk import DOCUMENT_MAX, File
from lakelog.errors import InvalidPolicy, NotAllowed
from lakelog.paths import Paths
from lakelog.refs import author
from lakelog.runtime.closest import did_you_mean
from lakelog.runtime.lazy import Lazy

if TYPE_CHECKING:
    import tomllib
else:
    tomllib = Lazy("tomllib")

DEFAULT = "default"
_BYTES_MAX = 1 << 20


@dataclass(frozen=True)
class Policy:
    """Globs of the authors who may do an operation, by its name or DEFAULT."""

    OPERATIONS: ClassVar[dict[str, str]] = {
        "rollback": "return a branch, its state directories or a deployment to a state",
        "undo": "undo that, or another move",
        "restore": "overwrite state directories with a saved state",
        "clean": "delete saved states",
        "delete-tag": "delete a tag",
        "delete-branch": "delete a branch",
        "remove-remote": "remove a remote",
        "push-force": "replace what only a remote has",
        "pull-force": "drop what a remote lacks",
        "retention": "remove old events",
        "dedupe": "remove duplicates",
        "drop-quarantine": "remove quarantined lines",
        "gc": "delete files that no state refers to",
        "erase": "erase events from every state, for good",
        "expire": "give up earlier states, to free their space at once",
        "repair": "set damaged files aside",
        "deploy": "return a deployment to an earlier revision",
    }
    allow: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def users(self, operation: str) -> tuple[str, ...]:
        """Return the globs of those who may do it."""
        return self.allow.get(operation, self.allow.get(DEFAULT, ("*",)))

    def allows(self, operation: str, user: str) -> bool:
        """Whether a user may do an operation."""
        return any(fnmatch.fnmatchcase(user, glob) for glob in self.users(operation))

    @classmethod
    def of(cls, paths: Paths) -> Policy:
        """Return the policy of a lake. Raises InvalidPolicy, with one line."""
        try:
            data = File(paths.policy).read(DOCUMENT_MAX)
            if len(data) > _BYTES_MAX:
                raise ValueError(f"it has {len(data):,} bytes")
            return cls(_allowed(tomllib.loads(data.decode())))
        except FileNotFoundError:
            return cls()
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise InvalidPolicy(
                f"{paths.policy}: {reason}; until it is mended nothing is overwritten or deleted"
            ) from None

    @classmethod
    def require(cls, paths: Paths, operation: str) -> None:
        """Refuse an operation that the policy does not allow this user. Raises NotAllowed,
        InvalidPolicy."""
        user = author()
        if not cls.of(paths).allows(operation, user):
            raise NotAllowed(
                f"{user} may not {cls.OPERATIONS[operation]} ({operation!r} in {paths.policy}):"
                " see `lakelog policy show`"
            )


def _allowed(body: dict[str, object]) -> dict[str, tuple[str, ...]]:
    if unknown := body.keys() - {"allow"}:
        raise ValueError(f"there is no section {min(unknown)!r}, only [allow]")
    rules = body.get("allow", {})
    if not isinstance(rules, dict):
        raise ValueError("[allow] is a section of operations")
    allow = {}
    for name, users in rules.items():
        if name not in Policy.OPERATIONS and name != DEFAULT:
            near = did_you_mean(name, [*Policy.OPERATIONS, DEFAULT])
            raise ValueError(f"no operation {name!r}: {near or 'see `lakelog policy show`'}")
        if not isinstance(users, list) or not all(isinstance(u, str) and u for u in users):
            raise ValueError(f'{name} needs a list of users, such as ["ada@*"]')
        allow[name] = tuple(users)
    return allow
