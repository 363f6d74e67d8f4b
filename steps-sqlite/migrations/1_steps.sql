-- The first schema. Times are microseconds since 1970-01-01T00:00:00Z (T2). STRICT makes SQLite enforce the types of
-- columns. The application id is "stps" in ASCII.

PRAGMA application_id = 0x73747073;

-- AUTOINCREMENT: an id is never used again, even after the last step was deleted (I1).
-- The largest number is that of steps_core::StepNumber (I4).
CREATE TABLE steps (
    id                INTEGER PRIMARY KEY AUTOINCREMENT,
    build_id          INTEGER NOT NULL,
    number            INTEGER NOT NULL CHECK (number <= 4294967295),
    name              TEXT    NOT NULL,
    state_string      TEXT    NOT NULL,
    started_at        INTEGER,
    locks_acquired_at INTEGER,
    complete_at       INTEGER,
    results           INTEGER,
    hidden            INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE UNIQUE INDEX steps_by_number ON steps (build_id, number);     -- I2
CREATE UNIQUE INDEX steps_by_name   ON steps (build_id, name);       -- N2, N3; BINARY collation: N4

-- The positions of a step's urls count from 0 without gaps (U1). Duplicates are found by their digest, which is
-- steps_core::StepUrl::digest, since text of 64 KiB is too large for an index entry (U2, U5).
CREATE TABLE step_urls (
    step_id  INTEGER NOT NULL,
    position INTEGER NOT NULL,
    digest   BLOB    NOT NULL,
    name     TEXT    NOT NULL,
    url      TEXT    NOT NULL,
    PRIMARY KEY (step_id, position)
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX step_urls_by_digest ON step_urls (step_id, digest);

-- The start of the search for a free suffix. In this build and after this prefix, every smaller suffix with the same
-- number of digits is taken (N5). The same as steps_core::naming::SuffixHints.
CREATE TABLE suffix_hints (
    build_id INTEGER NOT NULL,
    prefix   TEXT    NOT NULL,
    digits   INTEGER NOT NULL,
    next     INTEGER NOT NULL,
    PRIMARY KEY (build_id, prefix, digits)
) STRICT, WITHOUT ROWID;

-- The step that an add with this key added (I5).
CREATE TABLE idempotency_keys (
    build_id INTEGER NOT NULL,
    key      TEXT    NOT NULL,
    step_id  INTEGER NOT NULL,
    PRIMARY KEY (build_id, key)
) STRICT, WITHOUT ROWID;
