-- What a writer's connection has besides the schema, all of it temporary: it takes a batch of requests
-- as one INSERT into the view `requests`, a trigger for each operation carries each out in its turn, and
-- `answers` has a row for each that was. A request without an answer found no step to change, or no
-- number to give.

CREATE TEMP TABLE answers (
    request INTEGER PRIMARY KEY,
    id      INTEGER,
    number  INTEGER,
    name    TEXT
);

-- `target` is the build of an add and the step of every other operation. `text` is a state string or a
-- url, `key` an idempotency key or the digest of a url in hexadecimal.
CREATE TEMP VIEW requests AS
SELECT 0 AS request, '' AS operation, 0 AS target, '' AS name, '' AS text, '' AS key, 0 AS at, 0 AS results, 0 AS flag;

-- An add whose name is taken.
CREATE TEMP VIEW collisions AS
SELECT 0 AS request, 0 AS build_id, '' AS name, '' AS state_string;

-- The suffixes that were looked at for one collision, a row for each number of digits.
CREATE TEMP TABLE searched (
    digits INTEGER PRIMARY KEY,
    prefix TEXT,
    next   INTEGER
);
