"""What is built into PostgreSQL, by name: what is harmless, and what the catalog does not tell of.

Taken from pg_proc, pg_operator and pg_type of PostgreSQL 12 to 18. A server's catalog knows the rest.
"""

from lagwise._decide.effect import Effect


def words(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


COMMON = words(
    """
    array_agg avg bit_and bit_or bit_xor bool_and bool_or count cume_dist dense_rank every first_value grouping
    json_agg json_object_agg jsonb_agg jsonb_object_agg lag last_value lead max min mode nth_value ntile any_value
    percent_rank percentile_cont percentile_disc rank row_number stddev stddev_pop stddev_samp string_agg sum
    var_pop var_samp variance corr regr_slope regr_intercept regr_count range_agg xmlagg abs ceil ceiling div exp
    floor gcd lcm ln log log10 mod pi power round scale sign sqrt trunc width_bucket acos asin atan atan2 cos cot
    degrees radians sin tan ascii bit_length btrim char_length character_length chr concat concat_ws convert_from
    convert_to decode encode format initcap left length lower lpad ltrim md5 octet_length parse_ident quote_ident
    quote_literal quote_nullable regexp_count regexp_instr regexp_like regexp_match regexp_matches regexp_replace
    regexp_split_to_array regexp_split_to_table regexp_substr repeat replace reverse right rpad rtrim sha224 sha256
    sha384 sha512 split_part starts_with string_to_array string_to_table strpos substr substring to_char to_date
    to_hex to_number to_timestamp translate upper overlay position normalize is_normalized like_escape
    similar_to_escape similar_escape pg_collation_for get_bit get_byte bit_count age date date_bin date_part
    date_trunc extract isfinite justify_days justify_hours justify_interval make_date make_interval make_time
    make_timestamp make_timestamptz now statement_timestamp timezone transaction_timestamp overlaps date_add
    date_subtract array_append array_cat array_dims array_fill array_length array_lower array_ndims array_position
    array_positions array_prepend array_remove array_replace array_to_string array_upper cardinality generate_series
    generate_subscripts trim_array unnest array_to_json json_array_elements json_array_elements_text
    json_array_length json_build_array json_build_object json_each json_each_text json_extract_path
    json_extract_path_text json_object json_object_keys json_strip_nulls json_typeof jsonb_array_elements
    jsonb_array_elements_text jsonb_array_length jsonb_build_array jsonb_build_object jsonb_each jsonb_each_text
    jsonb_extract_path jsonb_extract_path_text jsonb_insert jsonb_object jsonb_object_keys jsonb_path_exists
    jsonb_path_match jsonb_path_query jsonb_path_query_array jsonb_path_query_first jsonb_pretty jsonb_set
    jsonb_set_lax jsonb_strip_nulls jsonb_typeof row_to_json to_json to_jsonb isempty lower_inc lower_inf upper_inc
    upper_inf daterange int4range int8range numrange tsrange tstzrange range_merge numnode plainto_tsquery
    phraseto_tsquery querytree setweight strip to_tsquery to_tsvector ts_headline ts_rank ts_rank_cd
    websearch_to_tsquery current_database current_schema current_schemas current_setting current_user session_user
    system_user col_description format_type has_schema_privilege has_table_privilege inet_client_addr
    inet_server_addr inet_server_port obj_description pg_backend_pid pg_client_encoding pg_column_size
    pg_current_snapshot pg_current_xact_id_if_assigned pg_encoding_to_char pg_get_constraintdef pg_get_expr
    pg_get_indexdef pg_get_serial_sequence pg_get_userbyid pg_get_viewdef pg_has_role pg_postmaster_start_time
    pg_table_is_visible pg_type_is_visible pg_typeof pg_wal_lsn_diff to_regclass to_regtype txid_current
    txid_current_snapshot txid_current_if_assigned version
    """
)
"""Functions declared IMMUTABLE or STABLE that applications use day in, day out, for when no catalog was read."""

HARMLESS = words(
    """
    bernoulli system clock_timestamp timeofday current_query random random_normal gen_random_uuid uuidv4 uuidv7
    currval lastval nextval pg_sequence_last_value pg_sleep pg_sleep_for pg_sleep_until pg_blocking_pids
    pg_safe_snapshot_blocking_pids pg_isolation_test_session_is_blocked pg_jit_available pg_control_checkpoint
    pg_control_init pg_control_recovery pg_control_system pg_current_logfile pg_current_wal_flush_lsn
    pg_current_wal_insert_lsn pg_current_wal_lsn pg_is_in_recovery pg_is_wal_replay_paused
    pg_get_wal_replay_pause_state pg_last_committed_xact pg_last_wal_receive_lsn pg_last_wal_replay_lsn
    pg_last_xact_replay_timestamp pg_get_wal_resource_managers pg_get_multixact_members pg_database_size
    pg_indexes_size pg_relation_size pg_table_size pg_tablespace_size pg_total_relation_size
    pg_collation_actual_version pg_database_collation_actual_version pg_partition_ancestors pg_partition_tree
    pg_lock_status pg_prepared_xact pg_notification_queue_usage pg_show_all_file_settings pg_hba_file_rules
    pg_ident_file_mappings pg_get_backend_memory_contexts pg_get_shmem_allocations pg_show_replication_origin_status
    pg_replication_origin_progress pg_replication_origin_session_is_setup pg_replication_origin_session_progress
    pg_ls_archive_statusdir pg_ls_dir pg_ls_logdir pg_ls_logicalmapdir pg_ls_logicalsnapdir pg_ls_replslotdir
    pg_ls_tmpdir pg_ls_waldir pg_read_binary_file pg_read_file pg_read_file_old pg_stat_file
    pg_stat_get_recovery_prefetch pg_stat_get_xact_blocks_fetched pg_stat_get_xact_blocks_hit
    pg_stat_get_xact_function_calls pg_stat_get_xact_function_self_time pg_stat_get_xact_function_total_time
    pg_stat_get_xact_numscans pg_stat_get_xact_tuples_deleted pg_stat_get_xact_tuples_fetched
    pg_stat_get_xact_tuples_hot_updated pg_stat_get_xact_tuples_inserted pg_stat_get_xact_tuples_returned
    pg_stat_get_xact_tuples_updated pg_stat_have_stats pg_xact_commit_timestamp pg_xact_commit_timestamp_origin
    pg_xact_status txid_status tsvector_update_trigger tsvector_update_trigger_column
    suppress_redundant_updates_trigger
    """
)
"""Built-in functions declared VOLATILE that leave nothing in the session."""

HARMLESS_IN_C = words(
    """
    uuid_generate_v1 uuid_generate_v1mc uuid_generate_v4 gen_random_bytes gen_salt
    """
)
"""VOLATILE functions of uuid-ossp and pgcrypto that leave nothing in the session; only where their language is C."""

EFFECTS = {
    **dict.fromkeys(
        words(
            """
            pg_advisory_lock pg_advisory_lock_shared pg_try_advisory_lock pg_try_advisory_lock_shared
            pg_advisory_unlock pg_advisory_unlock_shared pg_advisory_unlock_all
            """
        ),
        Effect.TOUCHES,
    ),
    **dict.fromkeys(
        words(
            """
            pg_advisory_xact_lock pg_advisory_xact_lock_shared pg_try_advisory_xact_lock
            pg_try_advisory_xact_lock_shared pg_export_snapshot
            """
        ),
        Effect.TRANSACTION,
    ),
    # No statement brings back a seed that could not be foreseen: the connection is closed.
    "setseed": Effect.TOUCHES | Effect.SPOILS,
    "setval": Effect.WRITES,
    "pg_notify": Effect.WRITES,
    # The effect depends on the arguments: see `settings`.
    "set_config": Effect.OPAQUE | Effect.TRANSACTION,
    # Declared STABLE, but they run the views that their arguments name.
    **dict.fromkeys(
        [f"{what}_to_{form}" for what in ("table", "schema", "database")
         for form in ("xml", "xml_and_xmlschema", "xmlschema")],
        Effect.OPAQUE,
    ),
}  # fmt: skip
"""Built-in functions whose effect is known."""

CONVERTING = words(
    """
    json_populate_record json_populate_recordset jsonb_populate_record jsonb_populate_recordset json_to_record
    json_to_recordset jsonb_to_record jsonb_to_recordset domain_in domain_recv record_in record_recv array_in
    array_recv range_in range_recv multirange_in multirange_recv pg_input_is_valid pg_input_error_info
    """
)
"""Functions that make values of a type that their text need not name: as harmless as the types there are."""

OPERATORS = words(
    """
    !! !~ !~* !~~ !~~* # ## #- #> #>> % & && &< &<| &> * *< *<= *<> *= *> *>= + - -> ->> -|- / < <-> << <<= <<| <=
    <> <@ <^ = > >= >> >>= >^ ? ?# ?& ?- ?-| ?| ?|| @ @-@ @> @? @@ @@@ ^ ^@ | |&> |/ |>> || ||/ ~ ~* ~<=~ ~<~ ~=
    ~>=~ ~>~ ~~ ~~*
    """
)
"""All operators of pg_catalog; none is VOLATILE. `!=` is read as `<>`."""

TYPES = words(
    """
    bit bool box bpchar bytea char cid cidr circle date datemultirange daterange float4 float8 inet int2 int2vector
    int4 int4multirange int4range int8 int8multirange int8range interval json jsonb jsonpath line lseg macaddr
    macaddr8 money name numeric nummultirange numrange oid oidvector path pg_lsn pg_snapshot point polygon record
    regclass regcollation regconfig regdictionary regnamespace regoper regoperator regproc regprocedure regrole
    regtype text tid time timestamp timestamptz timetz tsmultirange tsquery tsrange tstzmultirange tstzrange
    tsvector txid_snapshot unknown uuid varbit varchar void xid xid8 xml
    """
)
"""Types of pg_catalog."""
