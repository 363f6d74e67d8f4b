-- R1: ?1 is a JSON array of at most 64 selectors. Each is an array of build, number and name, where number or name is
-- null. Returns the same columns as get_steps.sql.
WITH selected (request, step_id) AS (
    SELECT key, coalesce(
        (SELECT id FROM steps WHERE build_id = value ->> 0 AND number = value ->> 1),
        (SELECT id FROM steps WHERE build_id = value ->> 0 AND name = value ->> 2))
    FROM json_each(?1)
)
SELECT request, '[' || step || ']', NULL
FROM selected JOIN step_json ON id = step_id

UNION ALL

SELECT request, NULL, '[' || group_concat(url) || ']'
FROM selected JOIN further_url_json USING (step_id)
GROUP BY request, chunk;
