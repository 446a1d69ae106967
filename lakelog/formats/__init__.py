"""What a line of a file means: one module per input format; `FORMATS` has them by name.

A `Format` makes `EventMembers` of lines; a `FormatDefinition` is how a user says what lines mean.
The other names are what is read line by line before or beside that: `LineEncoding`, `LeadingTime`,
`DateOrders`; `UniformLines` and `TypedPayloads` of lines that are all spelled alike; and messages
of protocols, `BulkAction`, `JournalExport` and `OtlpRequests`.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.formats.bulk import BulkAction as BulkAction
    from lakelog.formats.date_orders import DateOrders as DateOrders
    from lakelog.formats.definition import FormatDefinition as FormatDefinition
    from lakelog.formats.format import EventMembers as EventMembers
    from lakelog.formats.format import Format as Format
    from lakelog.formats.journal import JournalExport as JournalExport
    from lakelog.formats.leading_times import LeadingTime as LeadingTime
    from lakelog.formats.line_encoding import LineEncoding as LineEncoding
    from lakelog.formats.otlp import OtlpRequests as OtlpRequests
    from lakelog.formats.registry import FORMATS as FORMATS
    from lakelog.formats.uniform.typed_payloads import TypedPayloads as TypedPayloads
    from lakelog.formats.uniform.uniform_lines import UniformLines as UniformLines

__getattr__, __all__ = lazy_face(__name__)
