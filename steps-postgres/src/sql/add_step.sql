-- A batch of one add alone, which is the most frequent one of a process that does one thing at a time: as
-- write_batch.sql, without what only batches need.
SELECT 1::BIGINT, id, number, name, false FROM add_step($1, $2, $3, $4) WHERE id IS NOT NULL
