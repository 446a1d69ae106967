"""The shape `preference`: a better and a worse answer to one prompt, as SQL.

Either an event names both answers, or events hold one answer and its score each: then the best of
a prompt stands against its worst, if their scores differ. Of equal scores the earlier one counts.
"""

from __future__ import annotations

from lakelog.train.recipe import Recipe
from lakelog.train.selection import Selection
from lakelog.train.shapes.rows import carry_columns


def preference(selection: Selection, recipe: Recipe) -> str:
    """Columns `prompt, chosen, rejected`, with scores where there are some."""
    return (_from_scores if recipe.shape["response"] else _from_pairs)(selection, recipe)


def preference_lost(selection: Selection, recipe: Recipe) -> str:
    """SQL that counts, by reason, the events and prompts that `preference` leaves out."""
    shape = recipe.shape
    names = ("prompt", "response") if shape["response"] else ("prompt", "chosen", "rejected")
    values = {n: f"({selection.value(shape[n], f'[shape] {n}')})::VARCHAR" for n in names}
    is_complete = " AND ".join(f"coalesce(trim({v}), '') <> ''" for v in values.values())
    if not shape["response"]:
        return (
            f"SELECT count(*) FILTER (NOT ({is_complete})) AS no_pair,"
            f" count(*) FILTER (({is_complete}) AND {values['chosen']} = {values['rejected']})"
            f" AS equal_answers FROM ({selection.sql})"
        )
    is_complete += f" AND ({selection.value(shape['score'], '[shape] score')}) IS NOT NULL"
    return (
        f"SELECT (SELECT count(*) FROM ({selection.sql}) WHERE NOT ({is_complete})) AS no_pair,"
        f" (SELECT count(*) FROM (SELECT DISTINCT {values['prompt']} AS prompt"
        f"{', (' + _group(selection, recipe) + ')::VARCHAR' if recipe.split['group'] else ''}"
        f" FROM ({selection.sql}) WHERE {is_complete}))"
        f" - (SELECT count(*) FROM ({_from_scores(selection, recipe)})) AS equal_answers"
    )


def _from_pairs(selection: Selection, recipe: Recipe) -> str:
    shape = recipe.shape
    names = ("prompt", "chosen", "rejected")
    values = {n: f"({selection.value(shape[n], f'[shape] {n}')})::VARCHAR" for n in names}
    columns = ", ".join(
        [f"{v} AS {n}" for n, v in values.items()]
        + carry_columns(selection, recipe, {*names, "label"})
    )
    return f"""
    SELECT {columns}, [{selection.seq}]::BIGINT[] AS __seqs,
        {selection.time}::TIMESTAMPTZ AS __time,
        {selection.time}::TIMESTAMPTZ AS __until, ({_group(selection, recipe)})::VARCHAR AS __group,
        {_stratum(selection, recipe)} AS __stratum, {selection.seq}::BIGINT AS __at
    FROM ({selection.sql})
    WHERE {" AND ".join(f"trim({v}) <> ''" for v in values.values())}
        AND {values["chosen"]} <> {values["rejected"]}
    """


def _from_scores(selection: Selection, recipe: Recipe) -> str:
    shape = recipe.shape
    names = ("prompt", "response", "score")
    prompt, response, score = (selection.value(shape[n], f"[shape] {n}") for n in names)
    # The time is that of the latest answer, see below.
    extra = carry_columns(selection, recipe, {"prompt", "chosen", "rejected", "time"})
    listed = [e.rpartition(" AS ")[2] for e in extra]
    carried_values = "".join(f", any_value({n} ORDER BY time, seq) AS {n}" for n in listed)
    # The latest answer dates the pair: before it the comparison was not known.
    if recipe.split["before"] is not None:
        carried_values += ", max(time) AS time"
    inner = "".join(f", {e}" for e in extra)
    # Ties are broken by time and seq, so that a rebuild chooses the same answers.
    best = "ORDER BY score DESC, time, seq"
    worst = "ORDER BY score, time, seq"
    # Grouped by prompt within the split group, or one pair would mix answers of two groups and
    # belong to neither.
    return f"""
    WITH base AS (
        SELECT ({prompt})::VARCHAR AS prompt, ({response})::VARCHAR AS response,
            ({score})::DOUBLE AS score, {selection.time}::TIMESTAMPTZ AS time,
            {selection.seq} AS seq, ({_group(selection, recipe)})::VARCHAR AS __grouped,
            {_stratum(selection, recipe)} AS __strata{inner}
        FROM ({selection.sql})
        WHERE trim(({prompt})::VARCHAR) <> '' AND trim(({response})::VARCHAR) <> ''
            AND ({score}) IS NOT NULL
    )
    SELECT prompt, first(response {best}) AS chosen, first(response {worst}) AS rejected,
        max(score) AS chosen_score, min(score) AS rejected_score{carried_values},
        list(seq ORDER BY time, seq)::BIGINT[] AS __seqs, min(time) AS __time, max(time) AS __until,
        any_value(__grouped ORDER BY time, seq) AS __group,
        any_value(__strata ORDER BY time, seq) AS __stratum, min(seq)::BIGINT AS __at
    FROM base GROUP BY prompt{", __grouped" if recipe.split["group"] else ""}
    HAVING max(score) > min(score) AND first(response {best}) <> first(response {worst})
    ORDER BY min(time), min(seq), prompt
    """


def _group(selection: Selection, recipe: Recipe) -> str:
    group = recipe.split["group"]
    return selection.value(group, "[split] group") if group else "NULL"


def _stratum(selection: Selection, recipe: Recipe) -> str:
    stratum = recipe.split["stratify"]
    value = selection.value(stratum, "[split] stratify") if stratum else "NULL"
    return f"({value})::VARCHAR"
