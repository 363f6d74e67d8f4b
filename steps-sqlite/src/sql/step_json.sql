-- Temporary views of a reader's connection: the JSON of a step, which all reads share.

-- A step with its first 8 urls, each with its position. The urls have no order; the reader sorts them (U1).
CREATE TEMP VIEW step_json AS
SELECT id, build_id, number, name,
       json_array(
           id, build_id, number, name, state_string, started_at, locks_acquired_at, complete_at, results, hidden,
           (SELECT json_group_array(json_array(position, name, url))
            FROM step_urls WHERE step_id = steps.id AND position < 8)
       ) AS step,
       EXISTS (SELECT 1 FROM step_urls WHERE step_id = steps.id AND position >= 8) AS has_further_urls
FROM steps;

-- The other urls, with the chunk of at most 512 urls that each belongs to.
CREATE TEMP VIEW further_url_json AS
SELECT step_id, position / 512 AS chunk, json_array(step_id, position, name, url) AS url
FROM step_urls WHERE position >= 8;
