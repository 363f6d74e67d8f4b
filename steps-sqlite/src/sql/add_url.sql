-- U1, U2, L6: adds a single url. Returns no row if the step does not exist.
INSERT INTO step_urls (step_id, position, digest, name, url)
SELECT id, coalesce((SELECT max(position) FROM step_urls WHERE step_id = ?1), -1) + 1, ?2, ?3, ?4
FROM steps WHERE id = ?1
ON CONFLICT (step_id, digest) DO NOTHING;

SELECT 1 FROM steps WHERE id = ?1;
