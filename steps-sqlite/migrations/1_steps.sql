-- The first schema. Times are microseconds since 1970-01-01T00:00:00Z (T2). STRICT keeps every value
-- of the type that its column says. "steps" as it reads here is 0x73747073 in ASCII: "stps".

PRAGMA application_id = 0x73747073;

-- AUTOINCREMENT: an id is never used again, even after the last step was deleted (I1).
-- The greatest number is that of steps_core::StepNumber (I4).
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

-- Positions count from 0 without gaps, a step each (U1). The digest, steps_core::StepUrl::digest, is
-- the key by which a pair that is there is found: text of 64 KiB makes no index entry (U2, U5).
CREATE TABLE step_urls (
    step_id  INTEGER NOT NULL,
    position INTEGER NOT NULL,
    digest   BLOB    NOT NULL,
    name     TEXT    NOT NULL,
    url      TEXT    NOT NULL,
    PRIMARY KEY (step_id, position)
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX step_urls_by_digest ON step_urls (step_id, digest);

-- Where the search for a free suffix goes on: every smaller suffix of as many digits is taken in that
-- build after that prefix (N5). As steps_core::naming::SuffixHints.
CREATE TABLE suffix_hints (
    build_id INTEGER NOT NULL,
    prefix   TEXT    NOT NULL,
    digits   INTEGER NOT NULL,
    next     INTEGER NOT NULL,
    PRIMARY KEY (build_id, prefix, digits)
) STRICT, WITHOUT ROWID;

-- Which step an add with this key made (I5).
CREATE TABLE idempotency_keys (
    build_id INTEGER NOT NULL,
    key      TEXT    NOT NULL,
    step_id  INTEGER NOT NULL,
    PRIMARY KEY (build_id, key)
) STRICT, WITHOUT ROWID;
