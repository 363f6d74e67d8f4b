-- R1: ?1 is an id. Returns the same columns as get_steps_by_id.sql. A single step is cheaper to read without a list.
SELECT '0 [' || step || ']', CASE WHEN has_further_urls THEN '[0]' ELSE '[]' END
FROM step_json WHERE id = ?1
