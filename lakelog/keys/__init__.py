"""Who can read a lake: its keys, and the envelope that only they open."""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.keys import key_file as key_file
    from lakelog.keys import master as master
    from lakelog.keys.keyring import KeyRing as KeyRing
    from lakelog.keys.subject_keys import SubjectKeys as SubjectKeys
    from lakelog.keys.vault import VAULT as VAULT
    from lakelog.keys.vault import LakeKeys as LakeKeys

__getattr__, __all__ = lazy_face(__name__)
