-- L2 to L4: a single update, with the same rules as in write_batch. Null leaves a column unchanged. If no row is
-- returned, the step does not exist (L6).
UPDATE steps
SET started_at = coalesce($2, started_at),
    locks_acquired_at = coalesce($3, locks_acquired_at),
    state_string = coalesce($4, state_string),
    complete_at = coalesce($5, complete_at),
    results = coalesce($6, results),
    hidden = coalesce($7, hidden)
WHERE id = $1
RETURNING id
