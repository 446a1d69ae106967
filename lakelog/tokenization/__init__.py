"""What are the words of a text? Those that word indexes have and searches look for.

`Words` are those of the texts (`of_texts`), the names (`of_names`) or the payloads (`of_payloads`)
of rows, and `spaced` gives the words of a row as one text. Of the `SEARCHED` columns, payloads are
read as `payload_text`. `of_fragment` says which words a text with some characters has; scripts that
are `UNSPACED` have a word for each character, and `ESCAPE` stands for a payload with escapes.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.tokenization.tokens import (
        ESCAPE,
        SEARCHED,
        UNSPACED,
        Words,
        of_fragment,
        of_names,
        of_payloads,
        of_texts,
        payload_text,
        spaced,
    )

__all__ = [
    "ESCAPE",
    "SEARCHED",
    "UNSPACED",
    "Words",
    "of_fragment",
    "of_names",
    "of_payloads",
    "of_texts",
    "payload_text",
    "spaced",
]

__getattr__ = lazy_face(__name__, tokens=" ".join(__all__))
