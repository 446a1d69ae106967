"""Settings of the engine: which are of the process, and which belong to one session alone.

Most settings say how the engine works. Others change what a query means: the zone of times, whether
'a' equals 'A', where NULLs come. Set for all sessions, as the engine (2.0) takes even a plain
`SET default_collation`, these would change the views that are stored, the order in which rows are
sealed, and what other threads are answered. So they are set for the session that asks, or refused;
and whoever chooses segments for a query asks its session which of them it has changed.
"""

from __future__ import annotations

import re

from lakelog.engine.syntax import ParsedStatement
from lakelog.errors import QueryFailed
from lakelog.libraries import duckdb

OF_PROCESS = frozenset(
    """
    access_mode allocator_background_threads allocator_bulk_deallocation_flush_threshold
    allocator_flush_threshold allow_community_extensions allow_extension_repositories
    allow_extensions_metadata_mismatch allow_parser_override_extension allow_persistent_secrets
    allow_unredacted_secrets allow_unsigned_extensions allowed_configs allowed_directories
    allowed_paths approximate_join_order_threshold asof_loop_join_threshold async_threads
    auto_checkpoint_skip_wal_threshold autoinstall_extension_repository
    autoinstall_known_extensions autoload_known_extensions block_allocator_memory cache_local_files
    catalog_error_max_schemas checkpoint_on_detach checkpoint_threshold custom_extension_repository
    custom_user_agent debug_checkpoint_scan_sleep_ms default_block_size default_secret_storage
    delim_join_as_cte disable_database_invalidation disable_parquet_prefetching
    disabled_compression_methods disabled_filesystems disabled_log_types disabled_optimizers
    duckdb_api dynamic_or_filter_threshold enable_external_access enable_external_file_cache
    enable_fsst_vectors enable_http_metadata_cache enable_logging enable_object_cache
    enable_optimistic_write enable_optimizer enabled_log_types experimental_metadata_reuse
    explain_output extension_directories extension_directory extension_repository_directory
    external_file_cache_local_max_block_size external_file_cache_remote_max_block_size
    external_file_cache_remote_min_block_size external_file_cache_request_sizing
    external_file_cache_spill external_threads force_column_metadata_reuse force_compression
    fsync_mode home_directory http_client_pool_capacity http_proxy http_proxy_password
    http_proxy_username http_retry_quota_throttled http_retry_throttled_wait_ms
    immediate_transaction_mode index_scan_max_count index_scan_percentage
    initial_column_segment_size late_materialization_max_rows lock_configuration log_query_path
    logging_level logging_mode logging_sink logging_storage max_execution_time max_expression_depth
    max_memory max_temp_directory_size max_vacuum_tasks memory_limit merge_join_threshold
    nested_loop_join_threshold ordered_aggregate_threshold parquet_metadata_cache
    parquet_prefetch_column_gap parquet_use_page_index partitioned_write_flush_threshold
    partitioned_write_max_open_files password perfect_ht_threshold pin_threads
    pivot_filter_threshold pivot_limit prefer_range_joins prefetch_all_parquet_files
    read_ahead_depth redact_http_logs scheduler_process_partial secret_directory
    storage_block_prefetch storage_compatibility_version temp_directory temp_file_encryption
    threads user username validate_external_file_cache wal_autocheckpoint
    wal_autocheckpoint_entries worker_threads write_buffer_row_group_count
    write_buffer_row_group_memory_limit zstd_min_string_length
    """.split()
)
"""What may be set for all sessions: no answer depends on it."""
_DECIDING = ("TimeZone", "Calendar", "default_collation")
"""Settings of a session that decide which rows a comparison holds for: the first two say which time
a text or a day is."""
_USUAL = ("UTC", "gregorian", "")
OF_SESSION = frozenset(
    """
    active_grammar_extensions arrow_large_buffer_size arrow_lossless_conversion
    arrow_output_list_view arrow_output_version binary_as_string calendar current_dialect
    current_transaction_invalidation_policy default_collation default_null_order default_order
    default_transaction_invalidation_policy dialect_compatibility_mode disable_timestamptz_casts
    enable_geoparquet_conversion enable_macro_dependencies enable_profiling enable_progress_bar
    enable_progress_bar_print enable_view_dependencies error_on_division_by_zero errors_as_json
    file_search_path geometry_minimum_shredding_size ieee_floating_point_ops ignore_unknown_crs
    integer_division json_geometry_format legacy_disable_null_type max_streaming_buffer_size
    null_order operator_memory_limit order_by_non_integer_literal pandas_analyze_sample
    parquet_can_have_nan preserve_identifier_case preserve_insertion_order profile_output
    profiling_coverage profiling_output profiling_renderer_settings progress_bar_time
    python_enable_replacements python_scan_all_frames regex_match_operator_semantics
    scalar_subquery_error_on_multiple_rows schema search_path show_behavior standard_vector_size
    streaming_buffer_size table_function_identifier_conversion timezone tracked_metrics
    variant_minimum_shredding_size warnings_as_errors
    """.split()
)
"""What is set for one session, as is any setting that is not of the process."""
_GAP = r"(?:\s|--[^\n]*(?:\n|$)|/\*.*?\*/)"
_SET = re.compile(
    rf"{_GAP}*(?P<verb>set|reset|pragma){_GAP}+(?:(?P<scope>session|local|global){_GAP}+)?"
    rf'(?P<name>"[^"]+"|\w+)',
    re.I | re.S,
)
_OWN = frozenset(("variable", "time", "schema"))
"""What stands behind SET where no scope can, or need not: SET VARIABLE x, SET TIME ZONE."""
_USE = re.compile(rf"{_GAP}*use\b", re.I | re.S)
_CURRENT = "SELECT " + ", ".join(f"current_setting('{name}')" for name in _DECIDING)


def for_session(connection: duckdb.DuckDBPyConnection, query: str) -> str:
    """Return the SQL of statements that set for their own session what may change an answer.

    Raises QueryFailed for SET GLOBAL of such a setting, and the engine's error for a syntax error.
    """
    parsed = ParsedStatement.list_of(connection, query)
    if not any(statement.kind == "SET" for statement in parsed):
        return query
    queries = [
        _for_session(statement) if statement.kind == "SET" else statement.sql
        for statement in parsed
    ]
    if queries == [statement.sql for statement in parsed]:
        return query
    return ";\n".join(query_sql.rstrip(" ;") for query_sql in queries)


def require_effect(connection: duckdb.DuckDBPyConnection, query: str) -> None:
    """Raise QueryFailed for a text without rows that does nothing: it is empty, or ends by setting
    something of its session, which ends with it."""
    parsed = ParsedStatement.list_of(connection, query)
    if not parsed:
        raise QueryFailed('the query is empty: ask something such as "FROM events"')
    match = _SET.match(parsed[-1].sql) if parsed[-1].kind == "SET" else None
    if match and _name(match) not in OF_PROCESS:
        raise QueryFailed(
            "each query has a session of its own, and a setting ends with it: write the query in"
            f" the same text, {parsed[-1].sql.rstrip(' ;')}; SELECT ..."
        )


def adopt_zone(fresh: duckdb.DuckDBPyConnection, session: duckdb.DuckDBPyConnection) -> bool:
    """Give a fresh cursor the time zone and calendar of a session; return whether a comparison then
    holds for the same rows on both."""
    try:
        current = session.execute(_CURRENT).fetchall()[0]
    except duckdb.Error:  # in a transaction that an error has ended
        return False
    for name, value, usual in zip(_DECIDING[:2], current, _USUAL, strict=False):
        if value != usual:
            fresh.execute(f"SET SESSION {name} = $${value}$$")
    return bool(current[2:] == _USUAL[2:])


def _for_session(parsed: ParsedStatement) -> str:
    """Return the SQL of a statement that sets something, for its session if it is of one."""
    sql, match = parsed.sql, _SET.match(parsed.sql)
    if match is None and _USE.match(sql):
        return sql
    if match is None:
        raise QueryFailed("write a setting without comments: `SET SESSION name = value`")
    name, scope = _name(match), (match["scope"] or "").lower()
    if name in OF_PROCESS:
        return sql
    if scope == "global":
        raise QueryFailed(
            f"{match['name']} would change what others ask and the views that are stored: set it"
            f" for one session, `SET SESSION {match['name']} = ...`, in the shell or before a query"
        )
    if scope or name in _OWN:
        return sql
    start, stop = match.span("verb")
    verb = "SET" if match["verb"].lower() == "pragma" else match["verb"]
    return f"{sql[:start]}{verb} SESSION{sql[stop:]}"


def _name(match: re.Match[str]) -> str:
    return match["name"].strip('"').lower()
