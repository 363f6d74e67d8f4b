-- R1: ?1 is a JSON array of at most 64 ids of steps with many urls. See get_steps.sql for the columns of the answer.
SELECT requests.key,
       json_array(json_array(
           steps.id, build_id, number, name, state_string, started_at, locks_acquired_at, complete_at, results, hidden,
           (SELECT json_group_array(json_array(position, name, url))
            FROM step_urls WHERE step_id = steps.id AND position < 8))),
       NULL
FROM json_each(?1) AS requests JOIN steps ON steps.id = value

UNION ALL

SELECT key, NULL, json_group_array(json_array(step_id, position, name, url))
FROM json_each(?1) JOIN step_urls ON step_id = value
WHERE position >= 8
GROUP BY key, position / 512;
