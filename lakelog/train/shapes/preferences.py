"""The shape `preference`: a better and a worse answer to one prompt, as SQL.

Either an event names both answers, or events hold one answer and its score each: then the best of
a prompt stands against its worst, if their scores differ. Of equal scores the earlier one counts.

Answers that an event names may be conversations, lists of messages as TRL has them. Then all three
columns are such lists, and texts become a message each. Where no prompt is named, or the answers
repeat it, it is what both answers begin with.
"""

from __future__ import annotations

from lakelog.train.recipe import Recipe
from lakelog.train.selection import RowQuery
from lakelog.train.shapes.rows import (
    carry_columns,
    group_sql,
    member,
    rows_sql,
    stratum_sql,
    text_member,
)

_PAIR = ("prompt", "chosen", "rejected")
_MESSAGES = '[{"role":"VARCHAR","content":"VARCHAR"}]'
_IS_PAIR = "len(prompt) > 0 AND len(chosen) > 0 AND len(rejected) > 0"


def preference(selection: RowQuery, recipe: Recipe) -> str:
    """Columns `prompt, chosen, rejected`, with scores where there are some."""
    return (_from_scores if recipe.shape["response"] else _from_pairs)(selection, recipe)


def preference_lost(selection: RowQuery, recipe: Recipe) -> str:
    """SQL that counts, by reason, the events and prompts that `preference` leaves out."""
    if recipe.shape["response"]:
        return _lost_scores(selection, recipe)
    if _is_conversational(selection, recipe):
        source, is_complete = _conversations(selection, recipe), _IS_PAIR
        are_equal = "chosen = rejected"
    else:
        prompt, better, rejected = (text_member(selection, recipe, name) for name in _PAIR)
        source, is_complete = selection.sql, _are_given(prompt, better, rejected)
        are_equal = f"{better} = {rejected}"
    return (
        f"SELECT count(*) FILTER (NOT ({is_complete})) AS no_pair,"
        f" count(*) FILTER (({is_complete}) AND {are_equal}) AS equal_answers FROM ({source})"
    )


def _lost_scores(selection: RowQuery, recipe: Recipe) -> str:
    prompt, response = (text_member(selection, recipe, name) for name in ("prompt", "response"))
    is_complete = f"{_are_given(prompt, response)} AND {_score(selection, recipe)} IS NOT NULL"
    group = f", {group_sql(selection, recipe)}" if recipe.split["group"] else ""
    return (
        f"SELECT (SELECT count(*) FROM ({selection.sql}) WHERE NOT ({is_complete})) AS no_pair,"
        f" (SELECT count(*) FROM (SELECT DISTINCT {prompt} AS prompt{group}"
        f" FROM ({selection.sql}) WHERE {is_complete}))"
        f" - (SELECT count(*) FROM ({_from_scores(selection, recipe)})) AS equal_answers"
    )


def _score(selection: RowQuery, recipe: Recipe) -> str:
    """SQL of the score of an answer, null where it is no number."""
    number = f"TRY_CAST({member(selection, recipe, 'score')} AS DOUBLE)"
    # NaN would be higher than any other.
    return f"(CASE WHEN isfinite({number}) THEN {number} END)"


def _are_given(*values: str) -> str:
    return " AND ".join(f"coalesce(trim({value}), '') <> ''" for value in values)


def _is_conversational(selection: RowQuery, recipe: Recipe) -> bool:
    """Whether an answer of some event is a list of messages."""
    better = text_member(selection, recipe, "chosen")
    sql = f"SELECT coalesce(bool_or({_is_list(better)}), false) FROM ({selection.sql})"
    return bool(selection.session.sql(sql, digest=selection.digest).fetchall()[0][0])


def _is_list(value_sql: str) -> str:
    """SQL that says whether a text is a JSON list of objects with a role."""
    is_json = f"starts_with(ltrim({value_sql}), '[') AND json_valid({value_sql})"
    return f"CASE WHEN {is_json} THEN json_exists({value_sql}, '$[0].role') ELSE false END"


def _conversations(selection: RowQuery, recipe: Recipe) -> str:
    """SQL of pairs of conversations, the prompt cut off both answers, besides all columns."""
    names = {"prompt": "user", "chosen": "assistant", "rejected": "assistant"}
    lists = []
    for name, role in names.items():
        value = text_member(selection, recipe, name)
        message = f"[{{'role': '{role}', 'content': {value}}}]"
        lists.append(
            f"CASE WHEN {_is_list(value)} THEN from_json({value}, '{_MESSAGES}')"
            f" WHEN trim({value}) <> '' THEN {message} ELSE [] END AS __{name}"
        )
    # The first place where the answers differ is where the prompt ends.
    common = (
        "list_count(list_filter(range(1, least(len(__chosen), len(__rejected)) + 1),"
        " lambda n: __chosen[1:n] = __rejected[1:n]))"
    )
    return f"""
    SELECT * EXCLUDE (__prompt, __chosen, __rejected, __shared),
        CASE WHEN len(__prompt) > 0 THEN __prompt ELSE __chosen[1:__shared] END AS prompt,
        __chosen[__shared + 1:] AS chosen, __rejected[__shared + 1:] AS rejected
    FROM (SELECT *, CASE WHEN len(__prompt) = 0 THEN {common}
            WHEN __chosen[1:len(__prompt)] = __prompt AND __rejected[1:len(__prompt)] = __prompt
                THEN len(__prompt) ELSE 0 END AS __shared
        FROM (SELECT *, {", ".join(lists)} FROM ({selection.sql})))
    """


def _from_pairs(selection: RowQuery, recipe: Recipe) -> str:
    carried = carry_columns(selection, recipe, {*_PAIR, "label"})
    if _is_conversational(selection, recipe):
        condition = f"{_IS_PAIR} AND chosen <> rejected"
        source = _conversations(selection, recipe)
        return rows_sql(selection, recipe, [*_PAIR, *carried], condition, source)
    values = {name: text_member(selection, recipe, name) for name in _PAIR}
    columns = [f"{value} AS {name}" for name, value in values.items()]
    condition = f"{_are_given(*values.values())} AND {values['chosen']} <> {values['rejected']}"
    return rows_sql(selection, recipe, [*columns, *carried], condition)


def _from_scores(selection: RowQuery, recipe: Recipe) -> str:
    prompt, response = (member(selection, recipe, name) for name in ("prompt", "response"))
    score = _score(selection, recipe)
    # The time is that of the latest answer, see below.
    extra = carry_columns(selection, recipe, {"prompt", "chosen", "rejected", "time"})
    names = [e.rpartition(" AS ")[2] for e in extra]
    carried_values = "".join(f", any_value({n} ORDER BY time, seq) AS {n}" for n in names)
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
            {score} AS score, {selection.time}::TIMESTAMPTZ AS time,
            {selection.seq} AS seq, {group_sql(selection, recipe)} AS __grouped,
            {stratum_sql(selection, recipe)} AS __strata{inner}
        FROM ({selection.sql})
        WHERE trim(({prompt})::VARCHAR) <> '' AND trim(({response})::VARCHAR) <> ''
            AND {score} IS NOT NULL
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
