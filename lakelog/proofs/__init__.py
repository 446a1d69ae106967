"""Keys, signatures of states, and proofs that an event is in a signed state.

A `PrivateKey` signs a `Target` (`sign`), and a `SignatureCheck` looks whether that was done with
one of several `PublicKey`s. `prove` makes a file which proves to `check_proof`, without
the lake, that an event is in a signed state. An `ErasureReceipt` says what was erased.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.proofs.envelope import Statement as Statement
    from lakelog.proofs.keys import PrivateKey as PrivateKey
    from lakelog.proofs.keys import PublicKey as PublicKey
    from lakelog.proofs.proof import Proven as Proven
    from lakelog.proofs.proof import check_proof as check_proof
    from lakelog.proofs.proof import prove as prove
    from lakelog.proofs.receipt import ErasureReceipt as ErasureReceipt
    from lakelog.proofs.signing import SignatureCheck as SignatureCheck
    from lakelog.proofs.signing import Target as Target
    from lakelog.proofs.signing import sign as sign
    from lakelog.proofs.snapshot_tree import erased_leaves as erased_leaves
    from lakelog.proofs.snapshot_tree import find_events as find_events

__getattr__, __all__ = lazy_face(__name__)
