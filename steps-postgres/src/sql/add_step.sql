-- I2, I4, N2: an add without a key that comes alone, where nobody has the build's lock and the name is free. No row: nothing
-- was added, and write_batch will do it. What the statement sees may be older than the lock: then the number that it takes
-- for the next one is taken, and nothing is added either. $4 is a number from which the greatest is looked for, or 0: if the
-- build has none from there on, nothing is added.
INSERT INTO steps (build_id, number, name, state_string)
SELECT $1, next, $2, $3
FROM (
    SELECT coalesce(max(number) + 1, CASE WHEN $4 = 0 THEN 0 END) AS next
    FROM steps WHERE build_id = $1 AND number >= $4
) numbers
WHERE next <= 4294967295 AND pg_try_advisory_xact_lock(lock_of($1))
ON CONFLICT DO NOTHING
RETURNING id, number
