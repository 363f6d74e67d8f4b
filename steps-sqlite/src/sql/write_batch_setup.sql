-- Temporary objects of a writer's connection. A batch is one INSERT into the view `batches`. The trigger at the end of
-- this file inserts each request into the view of its kind, and the trigger of that view applies the request.
-- `responses` has a row for each request that succeeded. A request without a response found no step to update, or no
-- number to assign.
--
-- The requests of a batch are concurrent, so they may run in any order (R3).

CREATE TEMP TABLE responses (
    -- The index of the request in its batch.
    request INTEGER PRIMARY KEY,
    -- The step that an add added.
    step_id INTEGER
);

-- Each column is a JSON array of requests, or null. A request is an array of the columns of its view. In `adds` the
-- index in the array is the index of the request in the batch, with nulls in between.
CREATE TEMP VIEW batches AS SELECT '' AS adds, '' AS keyed_adds, '' AS updates, '' AS urls;

CREATE TEMP VIEW adds AS SELECT 0 AS request, 0 AS build_id, '' AS name, '' AS state_string;

-- Adds with an idempotency key.
CREATE TEMP VIEW keyed_adds AS SELECT 0 AS request, 0 AS build_id, '' AS name, '' AS state_string, '' AS key;

-- Adds without a response, because their name is taken. They are inserted into `suffixed_adds` next.
CREATE TEMP TABLE name_conflicts (request INTEGER, build_id INTEGER, name TEXT, state_string TEXT);

-- Adds whose name needs a suffix.
CREATE TEMP VIEW suffixed_adds AS SELECT * FROM name_conflicts;

-- The suffixes that the search for one name tried last, a row for each number of digits.
CREATE TEMP TABLE tried_suffixes (
    digits INTEGER PRIMARY KEY,
    prefix TEXT,
    next   INTEGER
);

-- Updates of a step. A column that is null stays unchanged.
CREATE TEMP VIEW updates AS
SELECT 0 AS request, 0 AS step_id, 0 AS started_at, 0 AS locks_acquired_at, '' AS state_string, 0 AS complete_at,
       0 AS results, 0 AS hidden;

-- `digest` is in hexadecimal.
CREATE TEMP VIEW urls AS SELECT 0 AS request, 0 AS step_id, '' AS name, '' AS url, '' AS digest;

CREATE TEMP TRIGGER write_batch INSTEAD OF INSERT ON batches BEGIN
    DELETE FROM responses;

    INSERT INTO adds (request, build_id, name, state_string)
    SELECT key, value ->> 0, value ->> 1, value ->> 2 FROM json_each(NEW.adds) WHERE value IS NOT NULL;

    INSERT INTO suffixed_adds SELECT * FROM name_conflicts;

    DELETE FROM name_conflicts;

    INSERT INTO keyed_adds (request, build_id, name, state_string, key)
    SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4 FROM json_each(NEW.keyed_adds);

    INSERT INTO updates (
        request, step_id, started_at, locks_acquired_at, state_string, complete_at, results, hidden
    )
    SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, value ->> 7
    FROM json_each(NEW.updates);

    INSERT INTO urls (request, step_id, name, url, digest)
    SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4 FROM json_each(NEW.urls);
END;
