-- The tables, created in the schema that search_path names.

-- Ids are drawn while the build's lock is held, in the order of the numbers. So the sequence must not cycle, which
-- would reuse ids, nor cache values for each session, which would give a later step a smaller id (I1).
--
-- Names compare by their bytes, whatever the database's locale (N4). `urls` counts the step's urls, and so is the
-- position of the next one (U1, U5). Times are finite, since those of steps_core have years from 1 to 9999 (T2).
-- `number` is at most the greatest steps_core::StepNumber: the statements that add steps check the limit (I4).
-- The fill factor leaves space for new versions of rows on the same page, so that an update of a step changes no index.
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

-- The positions of a step's urls count from 0 without gaps (U1). The unique key that detects an existing pair of
-- name and url is the digest, steps_core::StepUrl::digest: text of up to 64 KiB is too long for an index entry (U2,
-- U5).
CREATE TABLE step_urls (
    step_id  BIGINT  NOT NULL,
    position INTEGER NOT NULL,
    digest   BYTEA   NOT NULL,
    name     TEXT    NOT NULL,
    url      TEXT    NOT NULL,
    PRIMARY KEY (step_id, position)
);

CREATE UNIQUE INDEX step_urls_by_digest ON step_urls (step_id, digest);

-- `next` is the suffix at which the next search begins: in this build and after this prefix, every smaller suffix
-- with the same number of digits is taken (N5). See steps_core::naming::SuffixHints.
CREATE TABLE suffix_hints (
    build_id BIGINT  NOT NULL,
    prefix   TEXT    NOT NULL COLLATE "C",
    digits   INTEGER NOT NULL,
    next     BIGINT  NOT NULL,
    PRIMARY KEY (build_id, prefix, digits)
) WITH (fillfactor = 50);

-- The step that the add with this key created (I5).
CREATE TABLE idempotency_keys (
    build_id BIGINT NOT NULL,
    key      TEXT   NOT NULL COLLATE "C",
    step_id  BIGINT NOT NULL,
    PRIMARY KEY (build_id, key)
);

-- Steps with their urls: a row for each url of a step, or a single row with a null position. The state string may
-- be long, so only the first row has it. OFFSET 0 keeps the planner from flattening the subquery into a join, which
-- would search for the urls of steps without any.
CREATE VIEW whole_steps AS
SELECT id, build_id, number, steps.name, CASE WHEN position > 0 THEN NULL ELSE state_string END AS state_string,
       started_at, locks_acquired_at, complete_at, results, hidden, urls, position, url_name, url_text
FROM steps LEFT JOIN LATERAL (
    SELECT position, step_urls.name AS url_name, url AS url_text
    FROM step_urls WHERE step_id = steps.id AND steps.urls > 0 OFFSET 0
) AS urls_of_step ON true;
