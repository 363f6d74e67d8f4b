-- I2, I4, N2: adds a single step without a key under a free name, for half the cost of a batch. Returns no row if the
-- name is taken or the build is full. Nothing was written then, and no id was drawn. write_batch.sql handles such an
-- add.
INSERT INTO steps (build_id, number, name, state_string)
SELECT ?1, number, ?2, ?3
FROM (SELECT coalesce((SELECT max(number) FROM steps WHERE build_id = ?1), -1) + 1 AS number)
WHERE number <= 4294967295 AND NOT EXISTS (SELECT 1 FROM steps WHERE build_id = ?1 AND name = ?2);

SELECT id, number FROM steps WHERE id = last_insert_rowid() AND changes() = 1;
