"""Keys, signatures of states, and proofs that an event is in a signed state.

A `PrivateKey` signs a `Target` (`sign`), and a `SignatureCheck` looks whether that was done with
one of several `PublicKey`s. `prove` makes a file which proves to `check_proof`, without
the lake, that an event is in a signed state. An `ErasureReceipt` says what was erased.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.proofs.envelope import Statement
    from lakelog.proofs.keys import PrivateKey, PublicKey
    from lakelog.proofs.proof import Proven, check_proof, prove
    from lakelog.proofs.receipt import ErasureReceipt
    from lakelog.proofs.signing import SignatureCheck, Target, sign
    from lakelog.proofs.snapshot_tree import erased_leaves, find_events

__all__ = [
    "ErasureReceipt",
    "PrivateKey",
    "Proven",
    "PublicKey",
    "SignatureCheck",
    "Statement",
    "Target",
    "check_proof",
    "erased_leaves",
    "find_events",
    "prove",
    "sign",
]

__getattr__ = lazy_face(
    __name__,
    envelope="Statement",
    keys="PrivateKey PublicKey",
    proof="Proven check_proof prove",
    receipt="ErasureReceipt",
    signing="SignatureCheck Target sign",
    snapshot_tree="erased_leaves find_events",
)
