-- One batch: ?1 is a JSON array of requests, each an array of the columns of `requests` but the first.
--
-- The INSERT is one statement, so all that its triggers do is one transaction, which takes the lock before
-- it reads anything, and is committed before the next statement begins. Nothing is answered earlier (D1, D2).
INSERT INTO requests (request, operation, target, name, text, key, at, results, flag)
SELECT key, value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, value ->> 7
FROM json_each(?1);

SELECT json_group_array(json_array(request, id, number, name)) FROM answers;

DELETE FROM answers;
