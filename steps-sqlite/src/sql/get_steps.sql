-- R2: ?1 is a JSON array of builds. One statement, so one snapshot.
--
-- The answer has few rows, since a row costs as much as many steps. The first column is the place of the build
-- in ?1, the second has JSON arrays of up to 64 steps, each with its first 8 urls, the third JSON arrays of up to
-- 512 further urls. Urls come with their positions and in no order. A value of SQLite ends at 1 GB: with every text at
-- its limit (T1) and every character escaped, neither has more than 0.85 GB.
WITH RECURSIVE chunks (request, build, first) AS (
    SELECT key, value, 0 FROM json_each(?1)
    UNION ALL
    SELECT request, build, (SELECT min(number) FROM steps WHERE build_id = build AND number > first + 63)
    FROM chunks
    WHERE first IS NOT NULL
)
SELECT request,
       (SELECT json_group_array(json_array(
                   id, build_id, number, name, state_string, started_at, locks_acquired_at, complete_at,
                   results, hidden, (SELECT json_group_array(json_array(position, name, url))
                                     FROM step_urls WHERE step_id = steps.id AND position < 8)))
        FROM steps WHERE build_id = build AND number BETWEEN first AND first + 63),
       NULL
FROM chunks
WHERE first IS NOT NULL

UNION ALL

SELECT key, NULL, json_group_array(json_array(step_id, position, step_urls.name, url))
FROM json_each(?1) JOIN steps ON build_id = value JOIN step_urls ON step_id = steps.id
WHERE position >= 8
GROUP BY key, step_id, position / 512;
