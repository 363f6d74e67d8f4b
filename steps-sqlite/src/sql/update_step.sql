-- L2, L3, L4, L6: updates a single step. A parameter that is null leaves its column unchanged. Returns no row if the
-- step does not exist.
UPDATE steps
SET started_at = coalesce(?2, started_at),
    locks_acquired_at = coalesce(?3, locks_acquired_at),
    state_string = coalesce(?4, state_string),
    complete_at = coalesce(?5, complete_at),
    results = coalesce(?6, results),
    hidden = coalesce(?7, hidden)
WHERE id = ?1;

SELECT 1 WHERE changes() = 1;
