"""Shapes over the history of a subject: `decision` and `sequence`, as SQL.

**Look-ahead rule.** A row of `decision` knows of its subject: as context the events before the
decision, as outcome the first event of an outcome type after it and at most `window` later. Events
are ordered by time and, at equal times, by seq; "before" and "after" are strict in that order. The
label's time is that of the outcome, or the window's end where none came; nothing after it is read.
A decision whose window reaches beyond the last event of the state, and that has no outcome yet, is
not known: it is left out. What a clock wrote that was more than a day ahead is no last event. The
outcome of a later decision is left out, too: if the next decision of the subject comes first, the
outcome belongs to that one.
"""

from __future__ import annotations

from lakelog.errors import ExportRefused
from lakelog.settings import span_us
from lakelog.train.recipe import Recipe
from lakelog.train.selection import RowQuery, column_of, quoted, text_of
from lakelog.train.shapes.rows import member

_COLUMNS = ("time", "type")
_AHEAD_US = 86_400_000_000
_OWN_COLUMNS = {
    "decision": ("subject", "time", "type", "options", "chosen"),
    "sequence": ("subject", "time", "label"),
}
"""Columns by which rows can be split whatever a recipe keeps."""


def decision(selection: RowQuery, recipe: Recipe) -> str:
    """Columns `subject, time, context, options, chosen, outcome, reward, label_time`."""
    span = _span(recipe)
    carried = "".join(f", d.{_kept(n)} AS {quoted(column_of(n))}" for n in recipe.shape["keep"])
    # A decision without an outcome is a row only once its window is over: before that, the missing
    # outcome is not known to be missing.
    return f"""{_decision_ctes(selection, recipe)}
    SELECT d.subject, d.time, coalesce(d.context, []) AS context, d.options, d.chosen,
        o.type AS outcome, o.reward, coalesce(o.time, d.time + {span}) AS label_time{carried},
        list_concat(coalesce(d.seen, []), [d.seq], if(o.seq IS NULL, [], [o.seq]))::BIGINT[]
            AS __seqs,
        d.time AS __time, coalesce(o.time, d.time + {span}) AS __until,
        {_group(recipe, "d")} AS __group, {_stratum(recipe, "o.type", "d")} AS __stratum,
        d.seq::BIGINT AS __at
    FROM decisions d LEFT JOIN joined j USING (subject, time, seq)
        LEFT JOIN outcomes o ON o.subject = d.subject AND row(o.time, o.seq) = j.first
        CROSS JOIN horizon
    WHERE d.chosen IS NOT NULL AND (o.time IS NOT NULL OR d.time + {span} <= horizon.last)
    ORDER BY d.time, d.seq
    """


def decision_lost(selection: RowQuery, recipe: Recipe) -> str:
    """SQL that counts, by reason, the decisions that are left out."""
    return f"""{_decision_ctes(selection, recipe)}
    SELECT (SELECT count(*) FROM base WHERE subject IS NULL AND {_is_decision(recipe)})
            AS no_subject,
        count(*) FILTER (d.chosen IS NULL) AS no_choice,
        count(*) FILTER (d.chosen IS NOT NULL AND j.first IS NULL
            AND d.time + {_span(recipe)} > horizon.last) AS no_outcome_yet
    FROM decisions d LEFT JOIN joined j USING (subject, time, seq) CROSS JOIN horizon
    """


def undecided(selection: RowQuery, recipe: Recipe) -> str:
    """SQL of the decisions whose outcome may still come, as `decision` has them, without the
    columns of the outcome: their window reaches beyond the last event, and no outcome and no other
    decision of the subject came."""
    carried = "".join(f", d.{_kept(n)} AS {quoted(column_of(n))}" for n in recipe.shape["keep"])
    recent = (
        f"type = {text_of(recipe.shape['decision'])}"
        f" AND time > ({_last(selection)}) - {_span(recipe)}"
    )
    subject = member(selection, recipe, "by")
    # Most subjects have no open decision: their history is not read.
    source = (
        f"SELECT * FROM ({selection.sql}) WHERE {subject} IN"
        f" (SELECT {subject} FROM ({selection.sql}) WHERE {recent})"
    )
    return f"""{_decision_ctes(selection, recipe, source)}
    SELECT d.subject, d.time, coalesce(d.context, []) AS context, d.options, d.chosen{carried},
        d.seq::BIGINT AS __at
    FROM decisions d LEFT JOIN joined j USING (subject, time, seq) CROSS JOIN horizon
    WHERE d.chosen IS NOT NULL AND j.first IS NULL AND d.next_time IS NULL
        AND d.time + {_span(recipe)} > horizon.last
    ORDER BY d.time, d.seq
    """


def _span(recipe: Recipe) -> str:
    return f"INTERVAL {span_us(recipe.shape['window'])} MICROSECONDS"


def _is_decision(recipe: Recipe) -> str:
    return f"type = {text_of(recipe.shape['decision'])}"


def _decision_ctes(selection: RowQuery, recipe: Recipe, source: str = "") -> str:
    """The tables `base`, `decisions`, `outcomes`, `joined` and `horizon` of the look-ahead rule;
    `source` is SQL for those rows of the selection that matter."""
    shape = recipe.shape
    subject = member(selection, recipe, "by")
    # Checked by name, so that a missing column is an error of the recipe and not of the generated
    # SQL.
    for name in _COLUMNS:
        selection.value(name, "[shape] decision")
    outcomes = ", ".join(map(text_of, shape["outcome"]))
    options = selection.json(shape["options"], "[shape] options")
    choice = member(selection, recipe, "chosen")
    reward = member(selection, recipe, "reward") if shape["reward"] else "NULL"
    data = quoted("data") if "data" in selection.columns else "NULL"
    carried = "".join(
        f", {selection.value(n, '[shape] keep')} AS {_kept(n)}" for n in shape["keep"]
    )
    # `seen` keeps the numbers of the context events for the lineage. Only decisions have contexts:
    # lists of all rows would be many times the events, and windows of lists cannot spill.
    # `next_time` and `next_seq` are those of the subject's next decision. row(time, seq) compares
    # in the total order of the look-ahead rule. The horizon is that of the whole selection: a
    # silent subject has waited, too.
    return f"""
    WITH base AS MATERIALIZED (
        SELECT ({subject})::VARCHAR AS subject, time::TIMESTAMPTZ AS time, type,
            {selection.seq} AS seq, from_json({options}, '["VARCHAR"]') AS options,
            ({choice})::VARCHAR AS chosen,
            ({reward})::VARCHAR AS reward, {data}::VARCHAR AS data,
            row_number() OVER () AS __n{carried}
        FROM ({source or selection.sql})
    ), places AS MATERIALIZED (
        SELECT __n, subject, {_is_decision(recipe)} AS decides,
            row_number() OVER (PARTITION BY subject ORDER BY time, seq) AS place
        FROM base WHERE subject IS NOT NULL
    ), contexts AS (
        SELECT d.__n, list({{'time': e.time, 'type': e.type, 'data': e.data}} ORDER BY p.place)
                AS context,
            list(e.seq ORDER BY p.place) AS seen
        FROM places d JOIN places p ON p.subject = d.subject
            AND p.place BETWEEN d.place - {shape["history"]} AND d.place - 1
            JOIN base e ON e.__n = p.__n
        WHERE d.decides GROUP BY d.__n
    ), decisions AS (
        SELECT b.*, c.context, c.seen,
            lead(b.time) OVER following AS next_time, lead(b.seq) OVER following AS next_seq
        FROM base b LEFT JOIN contexts c USING (__n)
        WHERE b.subject IS NOT NULL AND b.{_is_decision(recipe)}
        WINDOW following AS (PARTITION BY b.subject ORDER BY b.time, b.seq)
    ),
    outcomes AS (SELECT * FROM base WHERE type IN ({outcomes})),
    joined AS (
        SELECT d.subject, d.time, d.seq, min(row(o.time, o.seq)) AS first
        FROM decisions d JOIN outcomes o ON o.subject = d.subject
            AND o.time >= d.time AND o.time <= d.time + {_span(recipe)}
        WHERE row(o.time, o.seq) > row(d.time, d.seq) AND NOT o.type = {text_of(shape["decision"])}
            AND (d.next_time IS NULL OR row(o.time, o.seq) < row(d.next_time, d.next_seq))
        GROUP BY d.subject, d.time, d.seq
    ), horizon AS ({_last(selection)})
    """


def _last(selection: RowQuery) -> str:
    """SQL of the time of the last event."""
    # By the state's own clock, so that a set that is made again is the same.
    due = selection.session.store.manifests.load(selection.digest).time + _AHEAD_US
    return f"""SELECT coalesce(max(time) FILTER (epoch_us(time::TIMESTAMPTZ) <= {due}), max(time))
        ::TIMESTAMPTZ AS last FROM ({selection.sql})"""


def sequence(selection: RowQuery, recipe: Recipe) -> str:
    """Columns `subject, time, history, label`: the tokens before, and the one that came next."""
    shape = recipe.shape
    subject = member(selection, recipe, "by")
    token = member(selection, recipe, "token")
    # The window ends before its own row: a history that had its label would give it away.
    length = shape["length"]
    return f"""
    WITH base AS (
        SELECT ({subject})::VARCHAR AS subject, {selection.time}::TIMESTAMPTZ AS time,
            {selection.seq} AS seq, ({token})::VARCHAR AS token
        FROM ({selection.sql})
        WHERE ({subject}) IS NOT NULL AND ({token}) IS NOT NULL
    ), sequences AS (
        SELECT subject, time, seq, token AS label,
            list(token) OVER past AS history, list(seq) OVER past AS seen
        FROM base
        WINDOW past AS (PARTITION BY subject ORDER BY time, seq
            ROWS BETWEEN {length} PRECEDING AND 1 PRECEDING)
    )
    SELECT subject, time, history, label, list_append(seen, seq)::BIGINT[] AS __seqs,
        time AS __time, time AS __until, {_group(recipe, "sequences")} AS __group,
        {_stratum(recipe, "label", "sequences")} AS __stratum, seq::BIGINT AS __at
    FROM sequences WHERE history IS NOT NULL
    ORDER BY time, seq
    """


def sequence_lost(selection: RowQuery, recipe: Recipe) -> str:
    """SQL that counts, by reason, the events that are no label of a sequence."""
    subject = member(selection, recipe, "by")
    token = member(selection, recipe, "token")
    return f"""
    SELECT count(*) FILTER (({subject}) IS NULL) AS no_subject,
        count(*) FILTER (({subject}) IS NOT NULL AND ({token}) IS NULL) AS no_token,
        count(DISTINCT ({subject})::VARCHAR) FILTER (({token}) IS NOT NULL) AS no_history
    FROM ({selection.sql})
    """


def _kept(name: str) -> str:
    """The column of a name of `keep` until the end: events have columns of any name."""
    return quoted(f"__keep_{column_of(name)}")


def _group(recipe: Recipe, table: str) -> str:
    """The group: whose events belong together, unless the recipe groups by a kept column."""
    group = recipe.split["group"]
    is_own = group in (None, recipe.shape["by"], "subject")
    return f"{table}.subject" if is_own else _carried_column(recipe, "group", table)


def _stratum(recipe: Recipe, label: str, table: str) -> str:
    stratum = recipe.split["stratify"]
    if stratum is None:
        return "NULL::VARCHAR"
    own_columns = {"outcome": label, "label": label, "chosen": f"{table}.chosen"}
    return own_columns.get(stratum) or _carried_column(recipe, "stratify", table)


def _carried_column(recipe: Recipe, key: str, table: str) -> str:
    """SQL for the column that a key of the split names, of a row made of several events. Raises
    ExportRefused where it has none."""
    name = column_of(recipe.split[key])
    if recipe.kind == "decision" and name in map(column_of, recipe.shape["keep"]):
        return f"({table}.{_kept(name)})::VARCHAR"
    if name not in _OWN_COLUMNS[recipe.kind]:
        way = "it has subject and label" if recipe.kind == "sequence" else "add it to [shape] keep"
        raise ExportRefused(f"[split] {key}: a row of {recipe.kind} has no column {name!r}: {way}")
    return f"({table}.{quoted(name)})::VARCHAR"
