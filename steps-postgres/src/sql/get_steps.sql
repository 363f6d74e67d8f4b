-- R2: $1 are builds. One statement, so one snapshot.
--
-- The answer has a row for each step, with the names and urls of its first 8 urls; and one for each 512 further urls
-- of a step, with their part in the third column: a value of PostgreSQL ends at 1 GB, and with every text at its
-- limit (T1) a part has 64 MiB.
SELECT request, id, NULL::INTEGER, build_id, number, steps.name, state_string, started_at, locks_acquired_at,
       complete_at, results, hidden,
       CASE WHEN urls > 0 THEN ARRAY(
           SELECT step_urls.name FROM step_urls WHERE step_id = steps.id AND position < 8 ORDER BY position) END,
       CASE WHEN urls > 0 THEN ARRAY(
           SELECT url FROM step_urls WHERE step_id = steps.id AND position < 8 ORDER BY position) END
FROM unnest($1::BIGINT[]) WITH ORDINALITY AS asked (build, request) JOIN steps ON build_id = build

UNION ALL

SELECT request, id, position / 512, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
       array_agg(step_urls.name ORDER BY position), array_agg(url ORDER BY position)
FROM unnest($1::BIGINT[]) WITH ORDINALITY AS asked (build, request) JOIN steps ON build_id = build
     JOIN step_urls ON step_id = steps.id
WHERE urls > 8 AND position >= 8
GROUP BY request, id, position / 512
