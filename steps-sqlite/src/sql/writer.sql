-- What a writer's connection has besides the schema, all of it temporary: it takes a batch of requests as one
-- INSERT into the view `batches`, which hands each of them to the view of its kind, where a trigger carries it
-- out. `answers` has a row for each that was. A request without an answer found no step to change, or no number
-- to give.
--
-- Requests of one batch wait at the same time, so they have no order among themselves (R3).

CREATE TEMP TABLE answers (
    -- The place of the request in its batch.
    request INTEGER PRIMARY KEY,
    -- Of an add, the step.
    step_id INTEGER
);

-- Each column is a JSON array of requests, which are arrays of the columns of the view of their kind; or null. The
-- adds have their places in the batch by standing there, with nulls between them.
CREATE TEMP VIEW batches AS SELECT '' AS adds, '' AS keyed_adds, '' AS changes, '' AS urls;

CREATE TEMP VIEW adds AS SELECT 0 AS request, 0 AS build_id, '' AS name, '' AS state_string;

-- Adds with an idempotency key.
CREATE TEMP VIEW keyed_adds AS SELECT 0 AS request, 0 AS build_id, '' AS name, '' AS state_string, '' AS key;

-- Adds that got no answer, since their name is taken. They are looked for a suffix from here.
CREATE TEMP TABLE taken (request INTEGER, build_id INTEGER, name TEXT, state_string TEXT);

CREATE TEMP VIEW collisions AS SELECT * FROM taken;

-- Changes of a step. What is null is left as it is.
CREATE TEMP VIEW changes AS
SELECT 0 AS request, 0 AS step_id, 0 AS started_at, 0 AS locks_acquired_at, '' AS state_string, 0 AS complete_at,
       0 AS results, 0 AS hidden;

-- `digest` is in hexadecimal.
CREATE TEMP VIEW urls AS SELECT 0 AS request, 0 AS step_id, '' AS name, '' AS url, '' AS digest;

-- The suffixes that were looked at for one collision, a row for each number of digits.
CREATE TEMP TABLE searched (
    digits INTEGER PRIMARY KEY,
    prefix TEXT,
    next   INTEGER
);

CREATE TEMP TRIGGER batch INSTEAD OF INSERT ON batches BEGIN
    DELETE FROM answers;

    INSERT INTO adds (request, build_id, name, state_string)
    SELECT key, value ->> 0, value ->> 1, value ->> 2 FROM json_each(NEW.adds) WHERE value IS NOT NULL;

    INSERT INTO collisions SELECT * FROM taken;

    DELETE FROM taken;

    INSERT INTO keyed_adds (request, build_id, name, state_string, key)
    SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4 FROM json_each(NEW.keyed_adds);

    INSERT INTO changes (
        request, step_id, started_at, locks_acquired_at, state_string, complete_at, results, hidden
    )
    SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, value ->> 7
    FROM json_each(NEW.changes);

    INSERT INTO urls (request, step_id, name, url, digest)
    SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4 FROM json_each(NEW.urls);
END;
