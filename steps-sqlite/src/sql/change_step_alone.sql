-- L2, L3, L4, L6: a change that comes alone. What is null is left as it is. No row: there is no such step.
UPDATE steps
SET started_at = coalesce(?2, started_at),
    locks_acquired_at = coalesce(?3, locks_acquired_at),
    state_string = coalesce(?4, state_string),
    complete_at = coalesce(?5, complete_at),
    results = coalesce(?6, results),
    hidden = coalesce(?7, hidden)
WHERE id = ?1;

SELECT 1 WHERE changes() = 1;
