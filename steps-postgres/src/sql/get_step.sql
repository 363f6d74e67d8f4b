-- R1: $1 to $4 are the ids, builds, numbers and names of the selectors, of which those that do not select are
-- null. See get_steps.sql for the columns of the answer.
SELECT request, steps.id, steps.build_id, steps.number, steps.name, state_string, started_at, locks_acquired_at,
       complete_at, results, hidden, urls,
       CASE WHEN urls > 0 THEN ARRAY(
           SELECT step_urls.name FROM step_urls WHERE step_id = steps.id AND position < 512 ORDER BY position) END,
       CASE WHEN urls > 0 THEN ARRAY(
           SELECT url FROM step_urls WHERE step_id = steps.id AND position < 512 ORDER BY position) END
FROM unnest($1::BIGINT[], $2::BIGINT[], $3::BIGINT[], $4::TEXT[] COLLATE "C") WITH ORDINALITY
    AS asked (id, build_id, number, name, request)
JOIN steps ON steps.id = coalesce(
    asked.id,
    (SELECT found.id FROM steps found WHERE found.build_id = asked.build_id AND found.number = asked.number),
    (SELECT found.id FROM steps found WHERE found.build_id = asked.build_id AND found.name = asked.name))
