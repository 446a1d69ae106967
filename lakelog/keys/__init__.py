"""Who can read a lake: its keys, and the envelope that only they open."""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.keys import key_file, master
    from lakelog.keys.keyring import KeyRing
    from lakelog.keys.subject_keys import SubjectKeys
    from lakelog.keys.vault import VAULT, LakeKeys

__all__ = ["VAULT", "KeyRing", "LakeKeys", "SubjectKeys", "key_file", "master"]

__getattr__ = lazy_face(
    __name__,
    key_file="",
    keyring="KeyRing",
    master="",
    subject_keys="SubjectKeys",
    vault="VAULT LakeKeys",
)
