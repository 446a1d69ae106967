"""What are the words of a text? Those that word indexes have and searches look for.

`Words` are those of the texts (`of_texts`), the names (`of_names`) or the payloads (`of_payloads`)
of rows, and `spaced` gives the words of a row as one text. Of the `SEARCHED` columns, payloads are
read as `payload_text`. `of_fragment` says which words a text with some characters has; scripts that
are `UNSPACED` have a word for each character, and `ESCAPE` stands for a payload with escapes.
Searches are made simpler where all words of some rows are known to be of ASCII (`is_ascii`).
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.tokenization.tokens import ESCAPE as ESCAPE
    from lakelog.tokenization.tokens import SEARCHED as SEARCHED
    from lakelog.tokenization.tokens import UNSPACED as UNSPACED
    from lakelog.tokenization.tokens import Words as Words
    from lakelog.tokenization.tokens import is_ascii as is_ascii
    from lakelog.tokenization.tokens import of_fragment as of_fragment
    from lakelog.tokenization.tokens import of_names as of_names
    from lakelog.tokenization.tokens import of_payloads as of_payloads
    from lakelog.tokenization.tokens import of_texts as of_texts
    from lakelog.tokenization.tokens import payload_text as payload_text
    from lakelog.tokenization.tokens import spaced as spaced

__getattr__, __all__ = lazy_face(__name__)
