-- name: schema
-- version: 1
-- about: The fields of data by type of event: kinds, how many events, first and last seen.
-- params: type text = null
-- Of a type 1,000 paths are told apart, of a lake 1,000 types: always the first ones in one order of
-- all names, so that states add up to the same however events are divided. Names without digits
-- come first, then short paths. Other fields are counted as `.*` of what they are in, other types as
-- null. Names are quoted where the engine's paths have to quote them.
-- map
WITH shapes AS MATERIALIZED (
    SELECT type, shape, count(*) AS events, min(time) AS first_seen, max(time) AS last_seen
    FROM (SELECT type, time, CASE WHEN data IS NULL THEN '"NULL"'
            WHEN strlen(data) > 65536 THEN '"LARGE"'
            ELSE coalesce(try(json_structure(data))::VARCHAR, '"DEEP"') END AS shape FROM segment)
    GROUP BY ALL
), leaves AS (
    SELECT s.type, events, first_seen, last_seen,
        CASE WHEN contains(t.fullkey, '"') THEN array_to_string(list_transform(
                regexp_extract_all(t.fullkey, '"(?:[^"\\]|\\.)*"|[^"\[]+|\[0\]', 0, 's'),
                lambda part: CASE part WHEN '[0]' THEN '[]' ELSE part END), '')
            ELSE replace(t.fullkey, '[0]', '[]') END AS place,
        CASE WHEN t.type = 'OBJECT' THEN 'object' WHEN t.type = 'ARRAY' THEN 'list'
            ELSE CASE t.atom::VARCHAR WHEN '"VARCHAR"' THEN 'text' WHEN '"UBIGINT"' THEN 'int'
            WHEN '"BIGINT"' THEN 'int' WHEN '"DOUBLE"' THEN 'float' WHEN '"BOOLEAN"' THEN 'bool'
            WHEN '"NULL"' THEN 'null' WHEN '"LARGE"' THEN 'large' WHEN '"DEEP"' THEN 'deep'
            ELSE CASE WHEN contains(place, '[]') THEN 'mixed' ELSE 'object' END END END AS kind
    FROM shapes s, json_tree(s.shape) t
)
SELECT type, CASE WHEN place = '$' THEN '$' ELSE ltrim(substr(place, 2), '.') END AS path, kind,
    sum(events)::BIGINT AS events, min(first_seen) AS first_seen, max(last_seen) AS last_seen
FROM leaves WHERE NOT (kind = 'null' AND ends_with(place, '[]')) GROUP BY ALL
-- merge
WITH added AS MATERIALIZED (
    SELECT type, path, kind, sum(events)::BIGINT AS events, min(first_seen) AS first_seen,
        max(last_seen) AS last_seen FROM partials GROUP BY ALL
), types AS (
    SELECT type FROM added WHERE type IS NOT NULL AND path = '$' GROUP BY type
    ORDER BY regexp_matches(type, '[0-9]'), type LIMIT 1000
), names AS MATERIALIZED (
    SELECT type, path, CASE WHEN path = '$' THEN [] ELSE
        regexp_extract_all(path, '\[\]|\.?(?:"(?:[^"\\]|\\.)*"|[^."\[\]]+)', 0, 's') END AS parts
    FROM (SELECT DISTINCT type, path FROM added) SEMI JOIN types USING (type)
), kept AS MATERIALIZED (
    SELECT type, path FROM names WHERE len(parts) <= 8 AND parts[-1] NOT IN ('*', '.*') OR path = '$'
    QUALIFY row_number() OVER (PARTITION BY type
        ORDER BY path <> '$', regexp_matches(path, '[0-9]'), len(parts), path) <= 1000
), places AS (
    SELECT type, path, path AS place FROM kept
    UNION ALL SELECT type, path, nullif(arg_max(above, i), '$') || '.*'
    FROM (SELECT type, path, i,
            coalesce(nullif(ltrim(array_to_string(parts[:i], ''), '.'), ''), '$') AS above
        FROM (SELECT *, unnest(range(len(parts))) AS i FROM names ANTI JOIN kept USING (type, path)))
    JOIN (SELECT type, path AS above FROM kept) USING (type, above) GROUP BY type, path
)
SELECT t.type, CASE WHEN t.type IS NULL THEN '$' ELSE coalesce(place, '*') END AS path,
    CASE WHEN t.type IS NULL THEN 'other' ELSE kind END AS kind, sum(events)::BIGINT AS events,
    min(first_seen) AS first_seen, max(last_seen) AS last_seen
FROM added a LEFT JOIN types t ON t.type = a.type
LEFT JOIN places p ON p.type = a.type AND p.path = a.path
WHERE t.type IS NOT NULL OR a.path = '$' GROUP BY ALL
-- finish
WITH chosen AS (
    SELECT * FROM state WHERE $type IS NULL OR type = $type
), totals AS (
    SELECT type, sum(events) AS total FROM chosen WHERE path = '$' GROUP BY type
), tokens AS (
    SELECT *, CASE WHEN path = '$' THEN [] ELSE
        regexp_extract_all(path, '\[\]|\.?(?:"(?:[^"\\]|\\.)*"|[^."\[\]]+)', 0, 's') END AS parts
    FROM chosen
), children AS (
    SELECT type, coalesce(nullif(array_to_string(parts[:-2], ''), ''), '$') AS parent, path,
        sum(events) AS events FROM tokens WHERE len(parts) > 0 AND parts[-1] <> '[]' GROUP BY ALL
), rare AS (
    -- More than 200 names of which each is in under 2 % of the events are keys of a map, not fields.
    SELECT c.type, c.path FROM children c
    JOIN chosen o ON o.type = c.type AND o.path = c.parent AND o.kind = 'object'
    WHERE c.events < 0.02 * o.events QUALIFY count(*) OVER (PARTITION BY c.type, c.parent) > 200
), renamed AS (
    SELECT p.type, p.path, ltrim(string_agg(
        CASE WHEN rare.path IS NULL THEN p.part ELSE '.*' END, '' ORDER BY p.i), '.') AS name
    FROM (SELECT type, path, i, parts[i] AS part, array_to_string(parts[:i], '') AS prefix
        FROM (SELECT DISTINCT type, path, parts, unnest(range(1, len(parts) + 1)) AS i
            FROM tokens SEMI JOIN rare USING (type))) p
    LEFT JOIN rare ON rare.type = p.type AND rare.path = ltrim(p.prefix, '.') GROUP BY ALL
), named AS (
    SELECT t.type, coalesce(r.name, t.path) AS path, kind, events, first_seen, last_seen
    FROM tokens t LEFT JOIN renamed r ON r.type = t.type AND r.path = t.path
), kinds AS (
    SELECT named.type, path, kind, least(sum(events), any_value(total))::BIGINT AS events,
        min(first_seen) AS first_seen, max(last_seen) AS last_seen, any_value(total) AS total
    FROM named JOIN totals ON named.type IS NOT DISTINCT FROM totals.type
    GROUP BY named.type, path, kind
), paths AS (
    SELECT type, path, least(sum(events), any_value(total))::BIGINT AS events,
        any_value(total) AS total, min(first_seen) AS first_seen, max(last_seen) AS last_seen,
        list({'kind': kind, 'events': events, 'first_seen': first_seen, 'last_seen': last_seen}
            ORDER BY kind) AS kinds,
        bool_or(kind = 'int') AND bool_or(kind = 'float') AS is_wider,
        list_sort(list_distinct(list_transform(list(kind) FILTER (kind <> 'null'), lambda one:
            CASE WHEN is_wider AND one IN ('int', 'float') THEN 'number' ELSE one END))) AS kind
    FROM kinds GROUP BY ALL
)
SELECT type, path, coalesce(array_to_string(kind, '|'), 'null') AS kind,
    CASE WHEN len(list_filter(kind, lambda one: one NOT IN ('large', 'deep'))) > 1
            OR list_contains(kind, 'mixed') THEN 'conflict'
        WHEN is_wider THEN 'widened' END AS drift,
    events, round(events / total, 4) AS share, first_seen, last_seen, kinds
FROM paths ORDER BY type NULLS LAST, path <> '$', path
