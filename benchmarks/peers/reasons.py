"""Why lakelog is not first in a row: what a profile says, by a pattern of the row's key.

Written for the rows that were lost when this was measured; a row that is lost later and matches
nothing says so.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

_SYNC = (
    "Both overwrite a WAL file that keeps its size, and wait for the same sync, 0.07 ms of a"
    " commit of one event. The rest is Python, 0.03 ms in a loop and more after each wait:"
    " validating, queueing for what other threads append, a frame with its checksums. SQLite's is"
    " in C, and half as long."
)
_ENCODE = (
    "Most of a commit of a hundred is validating whole events, known columns or not, and making"
    " their JSON lines, under the one lock that all threads share (profile: encoding 57 % of what"
    " is not the sync, compression 17 %). SQLite is handed six values."
)
_TAIL = (
    "About one in 100 commits of 100 writes a megabyte of space for those that follow, which takes"
    " 1 ms more, and one in 1,000 begins a file, with three syncs. The sealer beside does not show:"
    " with `seal: never` the slowest hundredth takes as long (3.2 ms, and 2.9 ms beside it, on a"
    " busy machine). SQLite copies its WAL back after a thousand pages: one commit of 100 in 130"
    " takes 5 ms. Which of the two shows at the slowest hundredth differs from run to run."
)
_GROWTH = (
    "Nobody's commits grow here but those of Delta and Iceberg: the first are slower than the"
    " last, those of SQLite more, for they make the WAL that later ones overwrite."
)
_HTTP = (
    "SQLite and the file stand behind a handler that parses lines and stores what they hold, and no"
    " more. lakelog's server also asks who sends, knows a request that comes again, also after a"
    " kill, sets aside what is no event, and bounds what waits."
)
_FIXED = (
    "Rows are decoded from Parquet; the tables of DuckDB and chDB are in the form that their engine"
    " computes with. Of payloads only the columns that a query names are read, as from COPY typed,"
    " whose events are in one file, written by DuckDB; made small, a lake takes no longer. What is"
    " asked again and again is a view: see the row of those."
)
_NEEDLE = (
    "Each repetition asks for another subject. lakelog decodes the subjects of the segments that"
    " their Bloom filters leave. SQLite, DuckDB and Lance answer from an index on the subject that"
    " was built for this row, outside its time."
)
_START = (
    "Loading modules: the interpreter, the engine, and what of lakelog a query needs. SQLite comes"
    " with Python and loads little."
)
_LOAD = (
    "COPY and the tables keep payloads as the text that they came as, and parse none. COPY typed"
    " makes structs of them, as lakelog does, in about as much processor time. lakelog also shows"
    " for every line that what it keeps gives the line back, sets aside those that are no events,"
    " remembers how far the file was taken in, writes Bloom filters, hashes and syncs; and its"
    " threads wait for Python's lock: 1.6 of two cores work. Of a load of 100,000 events a quarter"
    " is loading modules."
)
_MEMORY = (
    "SQLite takes in 10,000 rows at a time. lakelog reads, parses, encodes and writes successive"
    " chunks beside each other, in the engine and Arrow; with 2,000 events these take 150 MB."
)
_SIZE = (
    "zstd at level 19 is the yardstick for size and cannot be asked anything. COPY keeps six"
    " columns; a lake also the place and the arrival of each row, its manifests and filters."
)
_VIEWS = (
    "The first time builds what is kept: every event is read once, and from then on only new ones."
)
_PAST = "Both are look-ups; lakelog reads two small files first, so as to see what others did."
_BACK = (
    "The time is that of publishing what was appended since the tag, for nothing is lost by going"
    " back: a segment, its statistics, a manifest and a move, with six syncs (profile: engine a"
    " third, syncs a fifth). The move back alone is among the rows of what grows."
)
_RECOVER = (
    "Nothing is repaired; the first query decompresses the WAL and parses every line for the"
    " columns that it names (three quarters of the processor's time). The others hold rows in their"
    " final form. It is paid by whoever asks before the sealer has run; here it was told not to."
)
_EXPORT = (
    "The file has the text of each payload, which a lake builds again from its columns (a third"
    " of the processor's time); what a table exports is in memory, and has that text."
)
_TEXTS = (
    "lakelog keeps each event once, in typed columns, and beside them 2.4 bytes an event of index:"
    " the words of 65,536 rows, in which blocks of 2,048 they are, and which are joined. What is"
    " found is decoded with its block, put together as JSON and compared, and each query is parsed"
    " and planned, 3 ms. The others keep every text whole and a list of the rows, or places, of"
    " every word, in 3 to 20 times the bytes."
)
_TEXTS_LOAD = (
    "The time is that of the load and of compaction, which sorts all rows, finds and proves types"
    " of payloads, compresses at level 10 and indexes, 2.8 µs of it. ripgrep's is that of a copy."
)
_EXPECT = (
    "One client waits for one sync after the other in both; the rest is Python here, and C in"
    " SQLite (profile: of 0.2 ms of processor time the sync is a third, encoding the event a sixth,"
    " versions and the newest move a seventh). From a few clients on, those that wait share a sync,"
    " and lakelog is first."
)
_READ = (
    "Each read is a query that the engine plans over the newest state, those events included that"
    " are only in a WAL. SQLite and eventsourcing read rows that lie side by side in an index."
)
_SHARED = (
    "Lance and Delta sync nothing. A commit of lakelog is on the machine's own disk first; then a"
    " segment, a manifest and a move are written there and in the bucket, with eleven syncs, and"
    " another machine has the move in its own directory, synced, before it counts. Of 4 machines"
    " each commit is in, none is refused."
)
REASONS = (
    ("expect-read", _READ),
    ("expect-*", _EXPECT),
    ("shared-*", _SHARED),
    ("text-build", _TEXTS_LOAD),
    ("text-*", _TEXTS),
    ("rate 100 by *", _ENCODE),
    ("p50 100 by *", _ENCODE),
    ("p99 *", _TAIL),
    ("rate *", _SYNC),
    ("p50 *", _SYNC),
    ("processes-*", _SYNC),
    ("http-*", _HTTP),
    ("growth", _GROWTH),
    ("*-rate", _LOAD),
    ("*-peak*", _MEMORY),
    ("*-bytes", _SIZE),
    ("load-small", _SIZE),
    ("views-first", _VIEWS),
    ("*-first", _START),
    ("*-needle", _NEEDLE),
    ("*-export", _EXPORT),
    ("past", _PAST),
    ("back", _BACK),
    ("recovery", _RECOVER),
    ("load-*", _FIXED),
    ("many-*", _FIXED),
)


def of(key: str) -> str:
    """The reason for a row: that of the first pattern which fits."""
    fitting = (text for pattern, text in REASONS if fnmatchcase(key, pattern))
    return next(fitting, "No profile yet.")
