"""The shape `preference`: a better and a worse answer to one prompt, as SQL.

Either an event names both answers, or events hold one answer and its score each: then the best of
a prompt stands against its worst, if their scores differ. Of equal scores the earlier one counts.

Answers that an event names may be conversations, lists of messages as TRL has them. Then all three
columns are such lists, and texts become a message each. Where no prompt is named, or the answers
repeat it, it is what both answers begin with.
"""

from __future__ import annotations

from lakelog.train.recipe import Recipe
from lakelog.train.selection import Selection
from lakelog.train.shapes.rows import carry_columns

_MESSAGES = '[{"role":"VARCHAR","content":"VARCHAR"}]'
_IS_PAIR = "len(prompt) > 0 AND len(chosen) > 0 AND len(rejected) > 0"


def preference(selection: Selection, recipe: Recipe) -> str:
    """Columns `prompt, chosen, rejected`, with scores where there are some."""
    return (_from_scores if recipe.shape["response"] else _from_pairs)(selection, recipe)


def preference_lost(selection: Selection, recipe: Recipe) -> str:
    """SQL that counts, by reason, the events and prompts that `preference` leaves out."""
    shape = recipe.shape
    names = ("prompt", "response") if shape["response"] else ("prompt", "chosen", "rejected")
    values = {n: f"({selection.value(shape[n], f'[shape] {n}')})::VARCHAR" for n in names}
    is_complete = " AND ".join(f"coalesce(trim({v}), '') <> ''" for v in values.values())
    if not shape["response"] and _is_conversational(selection, recipe):
        return (
            f"SELECT count(*) FILTER (NOT ({_IS_PAIR})) AS no_pair, count(*) FILTER (({_IS_PAIR})"
            f" AND chosen = rejected) AS equal_answers FROM ({_conversations(selection, recipe)})"
        )
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


def _is_conversational(selection: Selection, recipe: Recipe) -> bool:
    """Whether an answer of some event is a list of messages."""
    chosen = f"({selection.value(recipe.shape['chosen'], '[shape] chosen')})::VARCHAR"
    sql = f"SELECT coalesce(bool_or({_is_list(chosen)}), false) FROM ({selection.sql})"
    return bool(selection.session.sql(sql, digest=selection.digest).fetchall()[0][0])


def _is_list(text: str) -> str:
    """SQL that says whether a text is a JSON list of objects with a role."""
    is_json = f"starts_with(ltrim({text}), '[') AND json_valid({text})"
    return f"CASE WHEN {is_json} THEN json_exists({text}, '$[0].role') ELSE false END"


def _conversations(selection: Selection, recipe: Recipe) -> str:
    """SQL of pairs of conversations, the prompt cut off both answers, besides all columns."""
    names = {"prompt": "user", "chosen": "assistant", "rejected": "assistant"}
    lists = []
    for name, role in names.items():
        value = f"({selection.value(recipe.shape[name], f'[shape] {name}')})::VARCHAR"
        one = f"[{{'role': '{role}', 'content': {value}}}]"
        lists.append(
            f"CASE WHEN {_is_list(value)} THEN from_json({value}, '{_MESSAGES}')"
            f" WHEN trim({value}) <> '' THEN {one} ELSE [] END AS __{name}"
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


def _from_pairs(selection: Selection, recipe: Recipe) -> str:
    shape = recipe.shape
    names = ("prompt", "chosen", "rejected")
    if _is_conversational(selection, recipe):
        columns = ", ".join([*names, *carry_columns(selection, recipe, {*names, "label"})])
        return f"""
    SELECT {columns}, [{selection.seq}]::BIGINT[] AS __seqs,
        {selection.time}::TIMESTAMPTZ AS __time, {selection.time}::TIMESTAMPTZ AS __until,
        ({_group(selection, recipe)})::VARCHAR AS __group,
        {_stratum(selection, recipe)} AS __stratum, {selection.seq}::BIGINT AS __at
    FROM ({_conversations(selection, recipe)}) WHERE {_IS_PAIR} AND chosen <> rejected
    """
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
