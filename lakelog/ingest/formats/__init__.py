"""One file per input format: how it is recognised, its SQL for whole chunks, its rule for a line.

A format module has `NAME`; `sniff(lines) -> float`, its score for some first lines (0 to 1);
`QUERY`, SQL over `lines(line, position)` that yields the columns of `COLUMNS` and `slow`; and
`parse(line) -> dict`, the exact rule, which also decides the rows flagged `slow`. What SQL can
not decide without loss is flagged, so both ways give the same events. Formats of text are made
of patterns (`pattern.py`), which give both. `PROSE` is true where a line ends in free text.

Optional: `BEGINS`, a regex for how a record of several lines begins, unless `CONTINUES` fits;
or `firsts(lines)`, which lines begin one; or `heads(lines, starts)`, which also says whether the
last is open. `complete(text)` says that a record is complete although nothing follows yet, so that
it is not held back. `WHOLE` gives SQL whole records. `MANY` records give a list of events, all of
them or none, at `places(record)` if it is there; their QUERY counts them in a column `nth`.
`UNTRIMMED` gives the exact rule lines as they are. In `BINARY` records runs of NULs are data.
`specialize(head)` is the format as a file's first bytes define it. `cheaper(lines)` are
queries to try before `QUERY`. `SUREST` is what `sniff` returns at most, 1.0 if it is not there;
`BY_LINE` says that it returns the mean of what it would of each line that is not blank.
"""

COLUMNS = ("time", "type", "category", "source", "subject", "level", "message", "data", "id")
