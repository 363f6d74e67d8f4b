-- R1: ?1 is a JSON array of at most 64 ids. The answer is one row, since the driver hands rows over one by one, each for
-- the price of reading a step. Its first column has a line for each step that there is: the place of its id in ?1, and
-- the step with its first 8 urls as get_steps.sql has them (JSON has no line breaks in its texts). That is as many steps
-- as a chunk has there, so no more than a value can hold. The second column says which have more urls than that: those are
-- read once more, by get_long_steps.sql.
SELECT group_concat(key || ' ' || json_array(json_array(
           steps.id, build_id, number, name, state_string, started_at, locks_acquired_at, complete_at, results, hidden,
           (SELECT json_group_array(json_array(position, name, url))
            FROM step_urls WHERE step_id = steps.id AND position < 8))), char(10)),
       json_group_array(key) FILTER (
           WHERE EXISTS (SELECT 1 FROM step_urls WHERE step_id = steps.id AND position >= 8))
FROM json_each(?1) JOIN steps ON steps.id = value
