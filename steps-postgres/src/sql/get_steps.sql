-- R2: $1 are builds. One statement, so one snapshot.
--
-- The last columns are how many urls the step has, and the names and urls of the first 512: a value of PostgreSQL
-- ends at 1 GB, and with every text at its limit (T1) these have 64 MiB. See further_urls.sql for the others.
SELECT request, steps.id, steps.build_id, steps.number, steps.name, state_string, started_at, locks_acquired_at,
       complete_at, results, hidden, urls,
       CASE WHEN urls > 0 THEN ARRAY(
           SELECT step_urls.name FROM step_urls WHERE step_id = steps.id AND position < 512 ORDER BY position) END,
       CASE WHEN urls > 0 THEN ARRAY(
           SELECT url FROM step_urls WHERE step_id = steps.id AND position < 512 ORDER BY position) END
FROM unnest($1::BIGINT[]) WITH ORDINALITY AS asked (build, request) JOIN steps ON steps.build_id = build
