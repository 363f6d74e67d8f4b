-- The first schema, in a schema of its own, to which search_path points.

-- A cycle or a smaller cache would use an id again or give a later step a smaller one (I1): ids are taken
-- under the build's lock, in the order of the numbers.
--
-- Names compare by their bytes, whatever the database's locale (N4). `urls` is how many the step has, and the
-- position of the next (U1, U5). Times are finite, since Rust's have a year from 1 to 9999 (T2).
-- The greatest number is that of steps_core::StepNumber; the function that adds checks it (I4).
-- Pages keep room for new versions of their rows, so that a change of a step touches no index.
CREATE TABLE steps (
    id                BIGINT      NOT NULL GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    build_id          BIGINT      NOT NULL,
    number            BIGINT      NOT NULL,
    name              TEXT        NOT NULL COLLATE "C",
    state_string      TEXT        NOT NULL,
    started_at        TIMESTAMPTZ,
    locks_acquired_at TIMESTAMPTZ,
    complete_at       TIMESTAMPTZ,
    results           INTEGER,
    hidden            BOOLEAN     NOT NULL DEFAULT false,
    urls              INTEGER     NOT NULL DEFAULT 0
) WITH (fillfactor = 80);

CREATE UNIQUE INDEX steps_by_number ON steps (build_id, number);    -- I2
CREATE UNIQUE INDEX steps_by_name   ON steps (build_id, name);      -- N2, N3; at most 200 bytes of name (N1)

-- Positions count from 0 without gaps, a step each (U1). The digest, steps_core::StepUrl::digest, is
-- the key by which a pair that is there is found: text of 64 KiB makes no index entry (U2, U5).
CREATE TABLE step_urls (
    step_id  BIGINT  NOT NULL,
    position INTEGER NOT NULL,
    digest   BYTEA   NOT NULL,
    name     TEXT    NOT NULL,
    url      TEXT    NOT NULL,
    PRIMARY KEY (step_id, position)
);

CREATE UNIQUE INDEX step_urls_by_digest ON step_urls (step_id, digest);

-- Where the search for a free suffix goes on: every smaller suffix of as many digits is taken in that
-- build after that prefix (N5). As steps_core::naming::SuffixHints.
CREATE TABLE suffix_hints (
    build_id BIGINT  NOT NULL,
    prefix   TEXT    NOT NULL COLLATE "C",
    digits   INTEGER NOT NULL,
    next     BIGINT  NOT NULL,
    PRIMARY KEY (build_id, prefix, digits)
) WITH (fillfactor = 50);

-- Which step an add with this key made (I5).
CREATE TABLE idempotency_keys (
    build_id BIGINT NOT NULL,
    key      TEXT   NOT NULL COLLATE "C",
    step_id  BIGINT NOT NULL,
    PRIMARY KEY (build_id, key)
);

-- A step as it is read: a row for each of its urls, or one without. The state string, which may be long, is in the first.
-- OFFSET keeps the planner from making one join of it all, which would look for the urls of steps that have none.
CREATE VIEW whole_steps AS
SELECT id, build_id, number, steps.name, CASE WHEN position > 0 THEN NULL ELSE state_string END AS state_string,
       started_at, locks_acquired_at, complete_at, results, hidden, urls, position, url_name, url_text
FROM steps LEFT JOIN LATERAL (
    SELECT position, step_urls.name AS url_name, url AS url_text
    FROM step_urls WHERE step_id = steps.id AND steps.urls > 0 OFFSET 0
) AS urls_of_step ON true;
