"""One file per input format: how it is recognised, its SQL for whole chunks, its rule for a line.

A format module has `NAME`; `sniff(lines) -> float`, how sure it is of some first lines (0 to 1);
`QUERY`, SQL over `lines(line, position)` that yields the columns of `COLUMNS` and `slow`; and
`parse(line) -> dict`, the exact rule, which also decides the rows flagged `slow`. What SQL can
not decide without loss is flagged, so both ways give the same events. Formats of text are made
of patterns (`pattern.py`), which give both. `PROSE` is true where a line ends in free text.

Where events span lines, `BEGINS` says how a record's first line begins, or `firsts(lines)` which
lines do; `complete(text)` says that a record has its end although nothing follows yet, so that
it is not held back. With `MANY` a record gives a list of events, all of them or none; its QUERY
counts them in a column `nth`. `fitted(head)` is the form as a file's first bytes say it is meant.
"""

COLUMNS = ("time", "type", "category", "source", "subject", "level", "message", "data", "id")
