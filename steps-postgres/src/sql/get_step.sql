-- R1: $1 to $4 are the ids, builds, numbers and names of the selectors, of which those that do not select are
-- null. See get_steps.sql for the rows of the answer.
WITH selected AS MATERIALIZED (
    SELECT request, coalesce(
        asked.id,
        (SELECT steps.id FROM steps WHERE steps.build_id = asked.build_id AND steps.number = asked.number),
        (SELECT steps.id FROM steps WHERE steps.build_id = asked.build_id AND steps.name = asked.name)) AS step_id
    FROM unnest($1::BIGINT[], $2::BIGINT[], $3::BIGINT[], $4::TEXT[] COLLATE "C") WITH ORDINALITY
        AS asked (id, build_id, number, name, request)
)
SELECT request, id, NULL::INTEGER, build_id, number, steps.name, state_string, started_at, locks_acquired_at,
       complete_at, results, hidden,
       CASE WHEN urls > 0 THEN ARRAY(
           SELECT step_urls.name FROM step_urls WHERE step_id = steps.id AND position < 8 ORDER BY position) END,
       CASE WHEN urls > 0 THEN ARRAY(
           SELECT url FROM step_urls WHERE step_id = steps.id AND position < 8 ORDER BY position) END
FROM selected JOIN steps ON id = step_id

UNION ALL

SELECT request, id, position / 512, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
       array_agg(step_urls.name ORDER BY position), array_agg(url ORDER BY position)
FROM selected JOIN steps ON id = selected.step_id JOIN step_urls ON step_urls.step_id = steps.id
WHERE urls > 8 AND position >= 8
GROUP BY request, id, position / 512
