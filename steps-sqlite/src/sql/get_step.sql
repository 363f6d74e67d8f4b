-- R1: ?1 is a JSON array of at most 64 selectors, each an array of id, build, number and name, of which
-- those that do not select are null. See get_steps.sql for the columns of the answer.
WITH selected (request, step_id) AS (
    SELECT key, coalesce(
        value ->> 0,
        (SELECT id FROM steps WHERE build_id = value ->> 1 AND number = value ->> 2),
        (SELECT id FROM steps WHERE build_id = value ->> 1 AND name = value ->> 3))
    FROM json_each(?1)
)
SELECT request,
       json_array(json_array(
           id, build_id, number, name, state_string, started_at, locks_acquired_at, complete_at, results, hidden,
           (SELECT json_group_array(json_array(name, url) ORDER BY position)
            FROM step_urls WHERE step_id = steps.id AND position < 8))),
       NULL
FROM selected JOIN steps ON id = step_id

UNION ALL

SELECT request, NULL, json_group_array(json_array(step_id, position, name, url))
FROM selected JOIN step_urls USING (step_id)
WHERE position >= 8
GROUP BY request, position / 512;
