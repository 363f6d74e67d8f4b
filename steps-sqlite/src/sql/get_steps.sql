-- R2: ?1 is a JSON array of builds. One statement, so one snapshot.
--
-- Returns few rows, since a row costs as much as many steps. The first column is the index of the build in ?1, the
-- second a JSON array of up to 64 steps with their first 8 urls, the third a JSON array of up to 512 further urls. A
-- value in SQLite may have 1 GB: with all texts at their limits (T1) and all characters escaped, neither array is
-- larger than 0.85 GB.
WITH RECURSIVE chunks (request, build, first) AS (
    SELECT key, value, 0 FROM json_each(?1)
    UNION ALL
    SELECT request, build, (SELECT min(number) FROM steps WHERE build_id = build AND number > first + 63)
    FROM chunks
    WHERE first IS NOT NULL
)
SELECT request,
       (SELECT '[' || group_concat(step) || ']'
        FROM step_json WHERE build_id = build AND number BETWEEN first AND first + 63),
       NULL
FROM chunks
WHERE first IS NOT NULL

UNION ALL

SELECT key, NULL, '[' || group_concat(url) || ']'
FROM json_each(?1) JOIN steps ON build_id = value JOIN further_url_json ON step_id = steps.id
GROUP BY key, step_id, chunk;
