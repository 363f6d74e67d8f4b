-- R1: ?1 is a JSON array of at most 64 ids of steps with more than 8 urls. Returns the same columns as get_steps.sql.
SELECT key, '[' || step || ']', NULL
FROM json_each(?1) JOIN step_json ON step_json.id = value

UNION ALL

SELECT key, NULL, '[' || group_concat(url) || ']'
FROM json_each(?1) JOIN further_url_json ON step_id = value
GROUP BY key, chunk;
