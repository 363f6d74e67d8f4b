-- One batch in one transaction: ?1 is a JSON array of requests, each an array of the columns of `requests`
-- but the first.
--
-- IMMEDIATE, so that it waits for other processes before it reads anything. The answers are read before the
-- COMMIT, so that what fails before it was certainly not applied (D2, D3); they are given after it (D1).
BEGIN IMMEDIATE;

INSERT INTO requests (request, operation, target, name, text, key, at, results, flag)
SELECT key, value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, value ->> 7
FROM json_each(?1);

SELECT json_group_array(json_array(request, id, number, name)) FROM answers;

DELETE FROM answers;

COMMIT;
