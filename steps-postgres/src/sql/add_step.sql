-- I2, I4, N2: a single add without an idempotency key, if no other transaction holds the build's lock and the name
-- is free. If no row is returned, no step was added, and write_batch must carry out the add. The statement's snapshot
-- may be older than the lock, and another step may have the number already: that conflict returns no row either.
INSERT INTO steps (build_id, number, name, state_string)
SELECT $1, next, $2, $3
FROM (SELECT coalesce(max(number), -1) + 1 AS next FROM steps WHERE build_id = $1) numbers
WHERE next <= 4294967295 AND pg_try_advisory_xact_lock(build_lock_key($1))
ON CONFLICT DO NOTHING
RETURNING id, number
