-- The tables of the floor in PostgreSQL, with the columns and the unique keys of the store.
CREATE SCHEMA floor;

CREATE TABLE floor.steps (
    id                BIGINT  NOT NULL GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    build_id          BIGINT  NOT NULL,
    number            BIGINT  NOT NULL,
    name              TEXT    NOT NULL COLLATE "C",
    state_string      TEXT    NOT NULL,
    started_at        TIMESTAMPTZ,
    locks_acquired_at TIMESTAMPTZ,
    complete_at       TIMESTAMPTZ,
    results           INTEGER,
    hidden            BOOLEAN NOT NULL DEFAULT false
);

CREATE UNIQUE INDEX steps_by_number ON floor.steps (build_id, number);
CREATE UNIQUE INDEX steps_by_name ON floor.steps (build_id, name);

CREATE TABLE floor.step_urls (
    id      BIGINT NOT NULL GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    step_id BIGINT NOT NULL,
    name    TEXT   NOT NULL,
    url     TEXT   NOT NULL
);

CREATE UNIQUE INDEX step_urls_by_pair ON floor.step_urls (step_id, name, url);
