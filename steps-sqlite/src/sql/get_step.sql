-- R1: ?1 is an id. The same columns as get_steps_by_id.sql, for a single step and for less.
SELECT '0 ' || json_array(json_array(
           id, build_id, number, name, state_string, started_at, locks_acquired_at, complete_at, results, hidden,
           (SELECT json_group_array(json_array(position, name, url))
            FROM step_urls WHERE step_id = steps.id AND position < 8))),
       CASE WHEN EXISTS (SELECT 1 FROM step_urls WHERE step_id = steps.id AND position >= 8) THEN '[0]' ELSE '[]' END
FROM steps WHERE id = ?1
