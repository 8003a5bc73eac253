"""Whether a statement can leave anything behind in the session that ran it."""

import re
from functools import lru_cache

_NAME = r'(?:"[^"]*"|[\w$]+)'
# A name, perhaps qualified, before a parenthesis that does not open a subquery: no call takes a bare one.
_CALL = re.compile(rf"({_NAME}(?:\s*\.\s*{_NAME})*)\s*\((?!\s*(?:select|values|with)\b)", re.IGNORECASE)
# Words that come before a parenthesis and can be no function's name there: reserved ones, and those that
# PostgreSQL's grammar takes for itself (https://www.postgresql.org/docs/current/sql-keywords-appendix.html).
_KEYWORDS = """
    all and any array as case cast distinct else except from group having in intersect lateral limit not null
    offset on or select some then union using when where with
    between bit char character coalesce decimal exists extract float greatest interval least nullif numeric
    overlay position row substring time timestamp trim values varchar
"""
# Where the words around it leave no room for a call.
_CLAUSES = re.compile(
    r"\)\s*over\s*\(|\)\s*filter\s*\(\s*where\b|\b(?:order|partition|group)\s+by\s*\("
    # the column names of a CTE
    rf"|{_NAME}\s*\([\w\s,]*\)\s*as\s+(?:(?:not\s+)?materialized\s*)?\((?=\s*(?:select|values|with)\b)",
    re.IGNORECASE,
)
# Built-in functions without a lasting effect. Not on the list only means one more round trip.
_HARMLESS = """
    array_agg avg bit_and bit_or bool_and bool_or count cume_dist dense_rank every first_value grouping
    json_agg json_object_agg jsonb_agg jsonb_object_agg lag last_value lead max min mode nth_value ntile
    percent_rank percentile_cont percentile_disc rank row_number stddev stddev_pop stddev_samp string_agg sum
    var_pop var_samp variance
    abs ceil ceiling div exp floor greatest least ln log mod pi power random round sign sqrt trunc width_bucket
    ascii bit_length btrim char_length character_length chr concat concat_ws convert_from convert_to decode
    encode format initcap left length lower lpad ltrim md5 octet_length quote_ident quote_literal
    regexp_count regexp_like regexp_match regexp_matches regexp_replace regexp_split_to_array
    regexp_split_to_table repeat replace reverse right rpad rtrim sha256 split_part starts_with
    string_to_array strpos substr to_char to_date to_hex to_number to_timestamp translate unaccent upper
    coalesce nullif
    age clock_timestamp date date_bin date_part date_trunc isfinite justify_days justify_hours make_date
    make_interval make_time make_timestamp make_timestamptz now statement_timestamp timeofday timezone
    transaction_timestamp
    array_append array_cat array_dims array_length array_lower array_ndims array_position array_positions
    array_prepend array_remove array_replace array_to_string array_upper cardinality generate_series
    generate_subscripts unnest
    array_to_json json_array_elements json_array_elements_text json_array_length json_build_array
    json_build_object json_each json_each_text json_extract_path json_extract_path_text json_object
    json_object_keys json_typeof jsonb_array_elements jsonb_array_elements_text jsonb_array_length
    jsonb_build_array jsonb_build_object jsonb_each jsonb_each_text jsonb_extract_path
    jsonb_extract_path_text jsonb_object jsonb_object_keys jsonb_path_exists jsonb_path_match
    jsonb_path_query jsonb_path_query_array jsonb_path_query_first jsonb_pretty jsonb_set jsonb_strip_nulls
    jsonb_typeof row_to_json to_json to_jsonb
    isempty lower_inc lower_inf upper_inc upper_inf daterange int4range int8range numrange tsrange tstzrange
    numnode plainto_tsquery phraseto_tsquery querytree setweight strip to_tsquery to_tsvector ts_headline
    ts_rank ts_rank_cd websearch_to_tsquery similarity word_similarity
    gen_random_uuid
    current_database current_schema current_setting inet_server_addr inet_server_port obj_description
    pg_backend_pid pg_column_size pg_get_expr pg_is_in_recovery pg_last_wal_replay_lsn pg_sleep
    pg_table_is_visible pg_total_relation_size pg_relation_size pg_typeof txid_current_snapshot version
"""
_QUERY = re.compile(r"[\s(]*(?:select|with)\b", re.IGNORECASE)
_KNOWN = frozenset(f"{_KEYWORDS} {_HARMLESS}".split())


@lru_cache(maxsize=4096)
def plain(sql: str) -> bool:
    """True when this SQL is a query that calls nothing but functions known to leave no trace.

    Not a parser: a wrong False costs a round trip, so everything unknown is False. Writes need no
    attention here, the replica refuses them. `SET`, `PREPARE`, `set_config()`, advisory locks and
    functions of the application's own are what this is about.

    >>> plain("SELECT count(*) AS n FROM item WHERE lower(name) = $1")
    True
    >>> plain("SELECT set_config('search_path', $1, false)")
    False
    """
    if not _QUERY.match(sql) or not sql.isascii() or any(mark in sql for mark in (";", "/*", "--")):
        return False
    if "uescape" in sql.lower():
        return False
    calls = _CALL.findall(_CLAUSES.sub(") ( ", sql))
    return all(re.sub(r"^pg_catalog\s*\.\s*", "", name.lower()) in _KNOWN for name in calls)
