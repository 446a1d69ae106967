"""One file per input format: how it is recognised, its SQL for whole chunks, its rule for a line.

A format module has `NAME`; `sniff(lines) -> float`, how sure it is of some first lines (0 to 1);
`QUERY`, SQL over `lines(line, position)` that yields the columns of `COLUMNS` and `slow`; and
`parse(line) -> dict`, the exact rule, which also decides the rows flagged `slow`. What SQL can
not decide without loss is flagged, so both ways give the same events. Formats of text are made
of patterns (`pattern.py`), which give both. `PROSE` is true where a line ends in free text.
"""

COLUMNS = ("time", "type", "category", "source", "subject", "level", "message", "data", "id")
