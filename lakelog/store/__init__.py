"""How do processes that share only a directory agree? By its files, and a few rules.

A `Store` is one lake that is open, with its `LakeConfig`. An `AttachmentRegistry` opens lakes that
are in a bucket. A `Machine` says whose states are its own, a `Policy` who may delete, `Hosts` which
machine stored an event, and a `Clock` in which order. `VerifiedFiles` are not hashed again. A
`SealerProcess` works beside those that append. `Signatures` are those of tags and states.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.store.attachment import AttachmentRegistry
    from lakelog.store.clock import Clock
    from lakelog.store.hosts import Hosts
    from lakelog.store.lake_config import LakeConfig
    from lakelog.store.machine import Machine
    from lakelog.store.policy import Policy
    from lakelog.store.sealer_process import SealerProcess
    from lakelog.store.signatures import SignatureFile, Signatures
    from lakelog.store.store import Store
    from lakelog.store.verified_files import VerifiedFiles

__all__ = [
    "AttachmentRegistry",
    "Clock",
    "Hosts",
    "LakeConfig",
    "Machine",
    "Policy",
    "SealerProcess",
    "SignatureFile",
    "Signatures",
    "Store",
    "VerifiedFiles",
]

__getattr__ = lazy_face(
    __name__,
    attachment="AttachmentRegistry",
    clock="Clock",
    hosts="Hosts",
    lake_config="LakeConfig",
    machine="Machine",
    policy="Policy",
    sealer_process="SealerProcess",
    signatures="SignatureFile Signatures",
    store="Store",
    verified_files="VerifiedFiles",
)
