"""Which functions depend on more than their arguments, and which aggregate: a list of our own.

What is stored must be the same at each computation, so it may call only functions of their
arguments. The engine has a flag for that, `stability`, but says with it what its optimizer may do:
DuckDB 2.0.1 calls `+` inconstant, as one of its overloads knows the session's time zone, and 2.0.0
calls the hour of the clock constant. So every function is named here, and the flag is read only of
those that a later engine has and this list does not.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from enum import Enum
from typing import NamedTuple

from lakelog.engine import core
from lakelog.engine.syntax import Node, nodes


class Volatility(Enum):
    """What the value of a function depends on."""

    IMMUTABLE = "its arguments alone"
    CLOCK = "the time at which it is called"
    SESSION = "the process, its settings and its tables"
    RANDOM = "chance"
    EFFECT = "nothing: it is called for what it does"
    UNKNOWN = "what neither this list nor the engine says"


_CLOCK = """
    age ago current_date current_localtime current_localtimestamp current_time current_timestamp
    get_current_time get_current_timestamp localtime localtimestamp now pg_conf_load_time
    pg_postmaster_start_time today transaction_timestamp
"""
_SESSION = """
    col_description current_catalog current_connection_id current_database current_query
    current_query_id current_role current_schema current_schemas current_setting
    current_transaction_id current_user currval format_type get_block_size getenv getvariable
    has_any_column_privilege has_column_privilege has_database_privilege
    has_foreign_data_wrapper_privilege has_function_privilege has_language_privilege
    has_schema_privilege has_sequence_privilege has_server_privilege has_table_privilege
    has_tablespace_privilege in_search_path index_key inet_client_addr inet_client_port
    inet_server_addr inet_server_port json_serialize_plan nextval obj_description
    pg_collation_is_visible pg_conversion_is_visible pg_function_is_visible pg_get_constraintdef
    pg_get_viewdef pg_has_role pg_is_other_temp_schema pg_my_temp_schema pg_opclass_is_visible
    pg_operator_is_visible pg_opfamily_is_visible pg_table_is_visible pg_ts_config_is_visible
    pg_ts_dict_is_visible pg_ts_parser_is_visible pg_ts_template_is_visible pg_type_is_visible
    session_user shobj_description stats txid_current user vector_type version
"""
_RANDOM = "gen_random_uuid random uuid uuidv4 uuidv7"
_EFFECT = "pg_sleep setseed setval sleep_ms write_log"
_AGGREGATES = """
    any_value approx_count_distinct approx_quantile approx_top_k arbitrary arg_max arg_max_null
    arg_max_nulls_last arg_min arg_min_null arg_min_nulls_last argmax argmin array_agg avg
    bit_and bit_or bit_xor bitstring_agg bool_and bool_or combine_aggr corr count count_if
    count_star countif covar_pop covar_samp decimal_average entropy favg first fsum geomean
    geometric_mean group_concat histogram histogram_exact json_group_array json_group_object
    json_group_structure kahan_sum kurtosis kurtosis_pop last list listagg lttb mad max max_by
    mean median min min_by mode product quantile quantile_cont quantile_disc regr_avgx regr_avgy
    regr_count regr_intercept regr_r2 regr_slope regr_sxx regr_sxy regr_syy reservoir_quantile
    sem skewness stddev stddev_pop stddev_samp string_agg sum sum_no_overflow sumkahan var_pop
    var_samp variance variant_group_array variant_group_object wavg weighted_avg
"""
_IMMUTABLE = """
    abs acos acosh add age aggregate alias apply array_aggr array_aggregate array_append
    array_apply array_cat array_concat array_contains array_cosine_distance
    array_cosine_similarity array_cross_product array_distance array_distinct array_dot_product
    array_extract array_filter array_grade_up array_has array_has_all array_has_any
    array_indexof array_inner_product array_intersect array_length array_negative_dot_product
    array_negative_inner_product array_pop_back array_pop_front array_position array_prepend
    array_push_back array_push_front array_reduce array_resize array_reverse array_reverse_sort
    array_select array_slice array_sort array_to_json array_to_string
    array_to_string_comma_default array_transform array_unique array_value array_where array_zip
    ascii asin asinh assert_true atan atan2 atanh bar base64 bin binom bit_count bit_length
    bit_position bitstring bitstring_byte_comparable can_cast_implicitly cardinality
    cast_to_type cbrt ceil ceiling century char_length character_length chr combine concat
    concat_ws constant_or_null contains cos cosh cot create_sort_key cume_dist
    damerau_levenshtein date_add date_diff date_part date_sub date_trunc datediff datepart
    datesub datetrunc day dayname dayofmonth dayofweek dayofyear days_in_month decade
    decimal_division decode degrees dense_rank divide editdist3 element_at encode ends_with
    enum_code enum_first enum_last enum_range enum_range_boundary epoch epoch_ms epoch_ns
    epoch_us equi_width_bins era error even exp factorial fdiv fill filter finalize first_value
    flatten floor fmod format format_bytes format_pg_type formatreadabledecimalsize
    formatreadablesize from_base64 from_binary from_hex from_json from_json_strict gamma gcd
    generate_series generate_subscripts get_bit get_type grade_up greatest
    greatest_common_divisor hamming hash hex hive_partition_component hour icu_sort_key if
    ilike_escape instr invoke is_histogram_other_bin isfinite isinf isnan isodow isoyear jaccard
    jaro_similarity jaro_winkler_similarity json json_array json_array_length json_contains
    json_copy_strftime_if_date json_copy_strftime_if_timestamp json_deep_merge
    json_deserialize_sql json_exists json_extract json_extract_path json_extract_path_text
    json_extract_string json_insert json_keys json_merge_patch json_merge_patch_diff
    json_normalize json_object json_pretty json_quote json_remove json_replace
    json_serialize_sql json_set json_strip_nulls json_structure json_transform
    json_transform_strict json_type json_valid json_value julian lag last_day last_value lcase
    lcm lead least least_common_multiple left left_grapheme len length length_grapheme
    levenshtein lgamma like_escape list_aggr list_aggregate list_any_value list_append
    list_apply list_approx_count_distinct list_avg list_bit_and list_bit_or list_bit_xor
    list_bool_and list_bool_or list_cat list_concat list_contains list_cosine_distance
    list_cosine_similarity list_count list_distance list_distinct list_dot_product list_element
    list_entropy list_extract list_filter list_first list_grade_up list_has list_has_all
    list_has_any list_histogram list_indexof list_inner_product list_intersect list_kurtosis
    list_kurtosis_pop list_last list_mad list_max list_median list_min list_mode
    list_negative_dot_product list_negative_inner_product list_pack list_position list_prepend
    list_product list_reduce list_resize list_reverse list_reverse_sort list_select list_sem
    list_skewness list_slice list_sort list_stddev_pop list_stddev_samp list_string_agg list_sum
    list_transform list_unique list_value list_var_pop list_var_samp list_where list_zip ln log
    log10 log2 lower lpad ltrim make_date make_time make_timestamp make_timestamp_ms
    make_timestamp_ns make_timestamptz make_type map map_concat map_contains map_contains_entry
    map_contains_value map_entries map_extract map_extract_value map_from_entries map_keys
    map_to_pg_oid map_type_id_to_pg_oid map_values md5 md5_number md5_number_lower
    md5_number_upper microsecond millennium millisecond minute mismatches mod month monthname
    multiply nanosecond nextafter nfc_normalize normalized_interval not_ilike_escape
    not_like_escape nth_value ntile nullif octet_length ord overlay parse_dirname parse_dirpath
    parse_duckdb_log_message parse_filename parse_formatted_bytes parse_path path_join
    percent_rank pg_get_expr pg_size_pretty pg_typeof pi position pow power prefix printf
    quarter radians range rank rank_dense reduce regexp_escape regexp_extract regexp_extract_all
    regexp_full_match regexp_matches regexp_replace regexp_split_to_array regexp_split_to_table
    remap_struct repeat replace replace_type reverse right right_grapheme round round_even
    roundbankers row row_number row_to_json rpad rtrim second set_bit sha1 sha256 sign signbit
    sin sinh split split_part sqrt st_asbinary st_asgeojson st_astext st_aswkb st_aswkt st_crs
    st_geomfromgeojson st_geomfromwkb st_intersects_extent st_setcrs starts_with str_split
    str_split_regex strftime string_split string_split_regex string_to_array strip_accents
    strlen strpos strptime struct_concat struct_contains struct_extract struct_extract_at
    struct_has struct_indexof struct_insert struct_keys struct_pack struct_position
    struct_update struct_values substr substring substring_grapheme subtract suffix switch tan
    tanh time_bucket timetz_byte_comparable timezone timezone_hour timezone_minute
    to_aggregate_state to_base to_base64 to_binary to_centuries to_days to_decades to_hex
    to_hours to_json to_microseconds to_millennia to_milliseconds to_minutes to_months
    to_quarters to_seconds to_timestamp to_weeks to_years translate trim trunc try_strptime
    typeof ucase unbin unhex unicode union_extract union_tag union_value unnest unpivot_list
    upper url_decode url_encode uuid_extract_timestamp uuid_extract_version variant_array_length
    variant_bytes_to_variant variant_comparator variant_contains variant_exists variant_extract
    variant_extract_string variant_keys variant_normalize variant_to_parquet_variant
    variant_type variant_typeof vertex_extract week weekday weekofyear xor year yearweek
"""
_COLLATION = re.compile(r"(?:icu_)?collate_\w+")
_WORD = re.compile(r"[a-z]\w*")
_BARE = frozenset(
    "current_catalog current_date current_role current_schema current_time current_timestamp"
    " current_user localtime localtimestamp session_user user".split()
)
"""Functions that SQL calls by their names alone, which the parser takes for columns."""
_VALUES = frozenset(("scalar", "macro", "aggregate", "window"))
"""What gives a value; tables are the affair of who says what a query may read."""

_TABLE_FUNCTIONS = frozenset("unnest range generate_series json_each json_tree".split())
"""Functions that give rows of their arguments alone."""
_FILE_NAME = re.compile(r"[./\\:*]")

AGGREGATES = frozenset(_AGGREGATES.split())
_NAMED = {
    **dict.fromkeys((*_IMMUTABLE.split(), *AGGREGATES), Volatility.IMMUTABLE),
    **dict.fromkeys(_CLOCK.split(), Volatility.CLOCK),
    **dict.fromkeys(_SESSION.split(), Volatility.SESSION),
    **dict.fromkeys(_RANDOM.split(), Volatility.RANDOM),
    **dict.fromkeys(_EFFECT.split(), Volatility.EFFECT),
}


def volatility(name: str, arguments: int) -> Volatility:
    """Return what a function depends on that is called with so many arguments."""
    name = name.lower()
    if name == "age" and arguments > 1:  # of two times; of one, it is counted from today
        return Volatility.IMMUTABLE
    return _listed(name) or _by_flags(name)


class FunctionCall(NamedTuple):
    """A call of a function: its name in small letters, and what its value depends on."""

    name: str
    volatility: Volatility

    @classmethod
    def of(cls, node: Node) -> FunctionCall | None:
        """Return the call that a node of a tree is, if it is one."""
        if node.get("class") in ("FUNCTION", "WINDOW"):
            name = str(node.get("function_name", "")).lower()
            return cls(name, volatility(name, len(node.get("arguments") or ())))
        if node.get("class") == "COLUMN_REF" and len(node.get("column_names", ())) == 1:
            name = str(node["column_names"][0]).lower()
            return cls(name, _NAMED[name]) if name in _BARE else None
        return None

    @property
    def is_aggregate(self) -> bool:
        """Whether it makes one value of several rows."""
        if _listed(self.name):
            return self.name in AGGREGATES
        return any(function_type == "aggregate" for function_type, _ in _flags().get(self.name, ()))

    @staticmethod
    def foreign_table(node: Node) -> str:
        """Return the function by which a node reads rows that are not of its arguments, or
        nothing."""
        if node.get("type") != "TABLE_FUNCTION":
            return ""
        name = str((node.get("function") or {}).get("function_name", "")).lower()
        return "" if name in _TABLE_FUNCTIONS else name

    @classmethod
    def first_foreign(cls, tree: Node) -> str:
        """Say what a query reads besides a lake, or does; nothing if it does neither."""
        return next(filter(None, map(cls._foreign, nodes(tree))), "")

    @classmethod
    def _foreign(cls, node: Node) -> str:
        if table_function := cls.foreign_table(node):
            return f"{table_function}() reads something else than the lake"
        if node.get("type") == "BASE_TABLE" and _FILE_NAME.search(str(node["table_name"])):
            return f"{node['table_name']!r} is a file, and not of the lake"
        name, volatility_of_call = cls.of(node) or ("", Volatility.IMMUTABLE)
        if volatility_of_call in (Volatility.EFFECT, Volatility.SESSION):
            return f"{name}() says nothing of events: a query here only reads"
        return ""


def unlisted() -> Iterator[str]:
    """Yield the functions of this engine that the list does not name."""
    flags = _flags().items()
    values = (
        name
        for name, flags_of_name in flags
        if any(function_type in _VALUES for function_type, _ in flags_of_name)
    )
    return (name for name in values if not _listed(name))


def _listed(name: str) -> Volatility | None:
    # Operators, and what the engine itself puts into its plans, have names that are no words.
    if not _WORD.fullmatch(name) or _COLLATION.fullmatch(name):
        return Volatility.IMMUTABLE
    return _NAMED.get(name)


def _by_flags(name: str) -> Volatility:
    """What the engine says of a function that is not listed; what it does not know, it refuses."""
    flags = {flag for function_type, flag in _flags().get(name, ()) if function_type in _VALUES}
    return Volatility.IMMUTABLE if flags <= {"CONSISTENT"} else Volatility.UNKNOWN


@functools.cache
def _flags() -> dict[str, set[tuple[str, str | None]]]:
    """What the engine says of each function's overloads: their kind, and their stability.

    It takes longer to list them than to open, so this is asked only for names not listed.
    """
    flags: dict[str, set[tuple[str, str | None]]] = {}
    with core.connect({}) as connection:
        rows = connection.execute(
            "SELECT DISTINCT lower(function_name), function_type, stability FROM duckdb_functions()"
        ).fetchall()
    for name, function_type, stability in rows:
        flags.setdefault(name, set()).add((function_type, stability))
    return flags
