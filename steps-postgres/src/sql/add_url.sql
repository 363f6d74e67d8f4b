-- U1, U2: a single url. FOR NO KEY UPDATE locks the step before `urls` is read, so the count is current and gives the
-- position. If no row is returned, the step does not exist (L6).
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
