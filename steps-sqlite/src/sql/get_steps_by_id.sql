-- R1: ?1 is a JSON array of at most 64 ids. Returns one row: sqlx sends each row through a channel, which costs as
-- much as reading a step.
--
-- The first column has a line for each step that exists: the index of its id in ?1, and a JSON array of the step
-- (JSON escapes line breaks in texts). A chunk of get_steps.sql has as many steps, so the value stays below the limit
-- of SQLite. The second column has the indexes of the steps with further urls. Those steps are read again by
-- get_long_steps.sql.
SELECT group_concat(key || ' [' || step || ']', char(10)),
       json_group_array(key) FILTER (WHERE has_further_urls)
FROM json_each(?1) JOIN step_json ON step_json.id = value
