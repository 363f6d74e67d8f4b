-- One batch in one transaction. The comment on the function, in migrations/2_functions.sql, explains the parameters;
-- `Batch::arguments` in src/writer.rs binds them in this order.
SELECT add_index, id, number, name
FROM write_batch(
    add_builds               => $1,
    add_names                => $2,
    add_states               => $3,
    add_keys                 => $4,
    add_is_plain             => $5,
    update_ids               => $6,
    update_started_at        => $7,
    update_locks_acquired_at => $8,
    update_state_strings     => $9,
    update_complete_at       => $10,
    update_results           => $11,
    update_hidden            => $12,
    url_step_ids             => $13,
    url_digests              => $14,
    url_names                => $15,
    url_texts                => $16)
