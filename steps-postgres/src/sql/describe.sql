-- The schema's version, and the settings that decide whether an acknowledged write survives (D1).
SELECT (SELECT max(version) FROM steps_migrations),
       current_setting('server_version'),
       current_setting('synchronous_commit'),
       current_setting('fsync')::BOOLEAN,
       current_setting('full_page_writes')::BOOLEAN,
       pg_is_in_recovery() OR current_setting('transaction_read_only')::BOOLEAN;
