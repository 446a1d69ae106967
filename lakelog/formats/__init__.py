"""What a line of a file means: one module per input format; `FORMATS` has them by name.

A `Format` makes `EventMembers` of lines; a `FormatDefinition` is how a user says what lines mean.
The other names are what is read line by line before or beside that: `LineEncoding`, `LeadingTime`,
`DateOrders`; `UniformLines` and `TypedPayloads` of lines that are all spelled alike; and messages
of protocols, `BulkAction`, `JournalExport` and `OtlpRequests`.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.formats.bulk import BulkAction
    from lakelog.formats.date_orders import DateOrders
    from lakelog.formats.definition import FormatDefinition
    from lakelog.formats.format import EventMembers, Format
    from lakelog.formats.journal import JournalExport
    from lakelog.formats.leading_times import LeadingTime
    from lakelog.formats.line_encoding import LineEncoding
    from lakelog.formats.otlp import OtlpRequests
    from lakelog.formats.registry import FORMATS
    from lakelog.formats.uniform.typed_payloads import TypedPayloads
    from lakelog.formats.uniform.uniform_lines import UniformLines

__all__ = [
    "FORMATS",
    "BulkAction",
    "DateOrders",
    "EventMembers",
    "Format",
    "FormatDefinition",
    "JournalExport",
    "LeadingTime",
    "LineEncoding",
    "OtlpRequests",
    "TypedPayloads",
    "UniformLines",
]

__getattr__ = lazy_face(
    __name__,
    bulk="BulkAction",
    date_orders="DateOrders",
    definition="FormatDefinition",
    format="EventMembers Format",
    journal="JournalExport",
    leading_times="LeadingTime",
    line_encoding="LineEncoding",
    otlp="OtlpRequests",
    registry="FORMATS",
    **{"uniform.typed_payloads": "TypedPayloads", "uniform.uniform_lines": "UniformLines"},
)
