"""Which ids are stored? Sorted runs of the keys of all rows that have one.

`IdentityKeys` are those of a run or a table, and `id_key` is the SQL for that of a row;
`unique_rows` drops rows whose keys are stored, and `stored_keys` says which are. `join` merges the
`runs_to_merge`.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.identities.identity_run import IdentityKeys as IdentityKeys
    from lakelog.identities.identity_run import id_key as id_key
    from lakelog.identities.identity_run import join as join
    from lakelog.identities.identity_run import runs_to_merge as runs_to_merge
    from lakelog.identities.identity_run import stored_keys as stored_keys
    from lakelog.identities.identity_run import unique_rows as unique_rows

__getattr__, __all__ = lazy_face(__name__)
