"""Which ids are stored? Sorted runs of the keys of all rows that have one.

`IdentityKeys` are those of a run or a table, and `id_key` is the SQL for that of a row;
`unique_rows` drops rows whose keys are stored, and `stored_keys` says which are. `join` merges the
`runs_to_merge`.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.identities.identity_run import (
        IdentityKeys,
        join,
        runs_to_merge,
        stored_keys,
        unique_rows,
    )
    from lakelog.identities.key_sql import id_key

__all__ = ["IdentityKeys", "id_key", "join", "runs_to_merge", "stored_keys", "unique_rows"]

__getattr__ = lazy_face(
    __name__,
    identity_run="IdentityKeys join runs_to_merge stored_keys unique_rows",
    key_sql="id_key",
)
