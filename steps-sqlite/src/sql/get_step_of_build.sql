-- R1: ?1 is a JSON array of at most 64 selectors, each an array of build, number and name, of which number or name is
-- null. See get_steps.sql for the columns of the answer.
WITH selected (request, step_id) AS (
    SELECT key, coalesce(
        (SELECT id FROM steps WHERE build_id = value ->> 0 AND number = value ->> 1),
        (SELECT id FROM steps WHERE build_id = value ->> 0 AND name = value ->> 2))
    FROM json_each(?1)
)
SELECT request,
       json_array(json_array(
           id, build_id, number, name, state_string, started_at, locks_acquired_at, complete_at, results, hidden,
           (SELECT json_group_array(json_array(position, name, url))
            FROM step_urls WHERE step_id = steps.id AND position < 8))),
       NULL
FROM selected JOIN steps ON id = step_id

UNION ALL

SELECT request, NULL, json_group_array(json_array(step_id, position, name, url))
FROM selected JOIN step_urls USING (step_id)
WHERE position >= 8
GROUP BY request, position / 512;
