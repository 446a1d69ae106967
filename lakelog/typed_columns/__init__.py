"""How are payloads columns? As structs of one `Schema`, where the engine gives their text back.

They stand in the `COLUMN` of a segment, a `Member` in each member of theirs, and `TEXT_BYTES` has
the length of their text. `infer` makes the schema of payloads, and `PayloadTyping` chooses it and
puts structs in place of texts, which `restored` takes back; `FieldColumns` says how the structs are
encoded. Columns have numbers for open tables: a `numbered_column`, the `numbered_structs` and the
`member_numbers`, in the `NUMBER_NOTE` of a field.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.typed_columns.field_ids import (
        NUMBER_NOTE,
        member_numbers,
        numbered_column,
        numbered_structs,
    )
    from lakelog.typed_columns.field_inference import infer
    from lakelog.typed_columns.payload_typing import FieldColumns, PayloadTyping, restored
    from lakelog.typed_columns.schema import COLUMN, TEXT_BYTES, Member, Schema

__all__ = [
    "COLUMN",
    "NUMBER_NOTE",
    "TEXT_BYTES",
    "FieldColumns",
    "Member",
    "PayloadTyping",
    "Schema",
    "infer",
    "member_numbers",
    "numbered_column",
    "numbered_structs",
    "restored",
]

__getattr__ = lazy_face(
    __name__,
    field_ids="NUMBER_NOTE member_numbers numbered_column numbered_structs",
    field_inference="infer",
    payload_typing="FieldColumns PayloadTyping restored",
    schema="COLUMN TEXT_BYTES Member Schema",
)
