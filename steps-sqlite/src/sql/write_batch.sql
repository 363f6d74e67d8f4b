-- One batch in one transaction: see writer.sql for the parameters.
--
-- The write is one statement, so SQLite begins and ends its transaction, and takes the lock for writing before it reads
-- anything, as BEGIN IMMEDIATE would. Nobody changes what is read after it: what `answers` has, and ids, numbers and names.
INSERT INTO batches (adds, keyed_adds, changes, urls) VALUES (?1, ?2, ?3, ?4);

SELECT json_group_array(json_array(request, steps.id, number, name))
FROM answers LEFT JOIN steps ON steps.id = step_id;
