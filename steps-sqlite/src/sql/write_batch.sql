-- One batch in one transaction: see writer.sql for the parameters.
--
-- It is one statement, so SQLite begins and ends its transaction, and takes the lock for writing before it reads
-- anything, as BEGIN IMMEDIATE would. The answers are read before the commit, so that what fails before it was
-- certainly not applied (D2, D3); they are given after it (D1).
INSERT INTO batches (adds, keyed_adds, changes, urls) VALUES (?1, ?2, ?3, ?4)
RETURNING (
    SELECT json_group_array(json_array(request, steps.id, number, name))
    FROM answers LEFT JOIN steps ON steps.id = step_id
);
