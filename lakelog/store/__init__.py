"""How do processes that share only a directory agree? By its files, and a few rules.

A `Store` is one lake that is open, with its `LakeConfig`. An `AttachmentRegistry` opens lakes that
are in a bucket. A `Machine` says whose states are its own, a `Policy` who may delete, `Hosts` which
machine stored an event, and a `Clock` in which order. `VerifiedFiles` are not hashed again. A
`SealerProcess` works beside those that append. `Signatures` are those of tags and states.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.store.attachment import AttachmentRegistry as AttachmentRegistry
    from lakelog.store.clock import Clock as Clock
    from lakelog.store.hosts import Hosts as Hosts
    from lakelog.store.lake_config import LakeConfig as LakeConfig
    from lakelog.store.machine import Machine as Machine
    from lakelog.store.policy import Policy as Policy
    from lakelog.store.sealer_process import SealerProcess as SealerProcess
    from lakelog.store.signatures import SignatureFile as SignatureFile
    from lakelog.store.signatures import Signatures as Signatures
    from lakelog.store.store import Store as Store
    from lakelog.store.verified_files import VerifiedFiles as VerifiedFiles

__getattr__, __all__ = lazy_face(__name__)
