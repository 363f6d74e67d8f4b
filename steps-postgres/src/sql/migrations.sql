-- The migrations that were applied to this schema. The prefix of the name avoids a clash with the migrations table
-- of an embedding program.
CREATE TABLE steps_migrations (
    version      BIGINT      NOT NULL PRIMARY KEY,
    description  TEXT        NOT NULL,
    installed_on TIMESTAMPTZ NOT NULL DEFAULT now()
);
