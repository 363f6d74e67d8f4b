-- The tables of the floor in SQLite, with the columns and the unique keys of the store.
CREATE TABLE IF NOT EXISTS steps (
    id                INTEGER PRIMARY KEY AUTOINCREMENT,
    build_id          INTEGER NOT NULL,
    number            INTEGER NOT NULL,
    name              TEXT    NOT NULL,
    state_string      TEXT    NOT NULL,
    started_at        INTEGER,
    locks_acquired_at INTEGER,
    complete_at       INTEGER,
    results           INTEGER,
    hidden            INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE UNIQUE INDEX IF NOT EXISTS steps_by_number ON steps (build_id, number);
CREATE UNIQUE INDEX IF NOT EXISTS steps_by_name ON steps (build_id, name);

CREATE TABLE IF NOT EXISTS step_urls (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    step_id INTEGER NOT NULL,
    name    TEXT    NOT NULL,
    url     TEXT    NOT NULL
) STRICT;

CREATE UNIQUE INDEX IF NOT EXISTS step_urls_by_pair ON step_urls (step_id, name, url);
