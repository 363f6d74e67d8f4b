-- I2, I4, N2: an add without a key that comes alone, of a name that is free, for half of what a batch costs. No row: the
-- name is taken, or there is no number left. Nothing was written then, and no id left out; write_batch.sql knows what to do.
INSERT INTO steps (build_id, number, name, state_string)
SELECT ?1, number, ?2, ?3
FROM (SELECT coalesce((SELECT max(number) FROM steps WHERE build_id = ?1), -1) + 1 AS number)
WHERE number <= 4294967295 AND NOT EXISTS (SELECT 1 FROM steps WHERE build_id = ?1 AND name = ?2);

SELECT id, number FROM steps WHERE id = last_insert_rowid() AND changes() = 1;
