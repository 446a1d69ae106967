"""Is every line accounted for: files that were read, beside what the lake has of them.

`audit.audit` compares them and gives an `audit.Audit`, which has a `FileAudit` of each file.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.audit import audit as audit
    from lakelog.audit.file_audit import FileAudit as FileAudit

__getattr__, __all__ = lazy_face(__name__)
