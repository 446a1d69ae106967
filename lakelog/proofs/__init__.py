"""Keys, signatures of states, and proofs that an event is in a signed state.

A `PrivateKey` signs a `Target` (`sign`), and `check_ref` and `check_lake` look whether that was
done with one of several `PublicKey`s. `prove` makes a file which proves to `check_proof`, without
the lake, that an event is in a signed state.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.proofs.envelope import Statement
    from lakelog.proofs.keys import PrivateKey, PublicKey
    from lakelog.proofs.proof import Proven, check_proof, prove
    from lakelog.proofs.signing import Target, check_lake, check_ref, sign
    from lakelog.proofs.snapshot_tree import find_events

__all__ = [
    "PrivateKey",
    "Proven",
    "PublicKey",
    "Statement",
    "Target",
    "check_lake",
    "check_proof",
    "check_ref",
    "find_events",
    "prove",
    "sign",
]

__getattr__ = lazy_face(
    __name__,
    {
        "envelope": "Statement",
        "keys": "PrivateKey PublicKey",
        "proof": "Proven check_proof prove",
        "signing": "Target check_lake check_ref sign",
        "snapshot_tree": "find_events",
    },
)
