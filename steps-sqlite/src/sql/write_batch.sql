-- Writes one batch in one transaction: see write_batch_setup.sql for the parameters.
--
-- The write is one statement, so SQLite begins and commits its transaction, and takes the write lock before it reads,
-- as with BEGIN IMMEDIATE. The second statement runs after the commit. It needs no snapshot: only this connection has
-- `responses`, and the id, number and name of a step never change.
INSERT INTO batches (adds, keyed_adds, updates, urls) VALUES (?1, ?2, ?3, ?4);

SELECT json_group_array(json_array(request, steps.id, number, name))
FROM responses LEFT JOIN steps ON steps.id = step_id;
