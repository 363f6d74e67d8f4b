-- U1, U2: a url that comes alone. The step's lock is taken first, and comes with how many urls it has then. No row: there is
-- no such step (L6).
WITH step AS (
    SELECT id, urls FROM steps WHERE id = $1 FOR NO KEY UPDATE
), added AS (
    INSERT INTO step_urls (step_id, position, digest, name, url)
    SELECT id, urls, $2, $3, $4 FROM step
    ON CONFLICT (step_id, digest) DO NOTHING
    RETURNING step_id
), counted AS (
    UPDATE steps SET urls = steps.urls + 1 FROM added WHERE id = step_id
)
SELECT id FROM step
