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
    from lakelog.typed_columns.field_ids import NUMBER_NOTE as NUMBER_NOTE
    from lakelog.typed_columns.field_ids import member_numbers as member_numbers
    from lakelog.typed_columns.field_ids import numbered_column as numbered_column
    from lakelog.typed_columns.field_ids import numbered_structs as numbered_structs
    from lakelog.typed_columns.field_inference import infer as infer
    from lakelog.typed_columns.payload_typing import FieldColumns as FieldColumns
    from lakelog.typed_columns.payload_typing import PayloadTyping as PayloadTyping
    from lakelog.typed_columns.payload_typing import restored as restored
    from lakelog.typed_columns.schema import COLUMN as COLUMN
    from lakelog.typed_columns.schema import TEXT_BYTES as TEXT_BYTES
    from lakelog.typed_columns.schema import Member as Member
    from lakelog.typed_columns.schema import Schema as Schema

__getattr__, __all__ = lazy_face(__name__)
