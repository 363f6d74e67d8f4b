-- Which versions of the schema were made. The embedding program may have tables of its own like it.
CREATE TABLE steps_migrations (
    version      BIGINT      NOT NULL PRIMARY KEY,
    description  TEXT        NOT NULL,
    installed_on TIMESTAMPTZ NOT NULL DEFAULT now()
);
