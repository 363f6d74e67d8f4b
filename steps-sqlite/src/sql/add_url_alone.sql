-- U1, U2, L6: a url that comes alone. No row: there is no such step.
INSERT INTO step_urls (step_id, position, digest, name, url)
SELECT id, coalesce((SELECT max(position) FROM step_urls WHERE step_id = ?1), -1) + 1, ?2, ?3, ?4
FROM steps WHERE id = ?1
ON CONFLICT (step_id, digest) DO NOTHING;

SELECT 1 FROM steps WHERE id = ?1;
