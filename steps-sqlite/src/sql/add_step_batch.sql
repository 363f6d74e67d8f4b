-- I2, I4, N2: adds a step with the next number and the requested name. The constraints of the table skip the row if
-- the name is taken or the number is too large. SQLite has drawn an id by then, which stays unused (I1). A plain max()
-- in a query of its own reads one index entry; with HAVING, or in FROM, it would read all of them (N5).
CREATE TEMP TRIGGER add_step INSTEAD OF INSERT ON adds BEGIN
    INSERT OR IGNORE INTO steps (build_id, number, name, state_string)
    VALUES (
        NEW.build_id,
        coalesce((SELECT max(number) FROM steps WHERE build_id = NEW.build_id), -1) + 1,
        NEW.name,
        NEW.state_string
    );

    INSERT INTO responses (request, step_id) SELECT NEW.request, last_insert_rowid() WHERE changes() = 1;

    INSERT INTO name_conflicts (request, build_id, name, state_string)
    SELECT NEW.request, NEW.build_id, NEW.name, NEW.state_string WHERE changes() = 0;
END;

-- I5: a key that the build knows returns the step that it returned first.
CREATE TEMP TRIGGER add_step_with_key INSTEAD OF INSERT ON keyed_adds BEGIN
    INSERT INTO responses (request, step_id)
    SELECT NEW.request, step_id FROM idempotency_keys WHERE build_id = NEW.build_id AND key = NEW.key;

    INSERT INTO adds (request, build_id, name, state_string)
    SELECT NEW.request, NEW.build_id, NEW.name, NEW.state_string WHERE changes() = 0;

    INSERT INTO suffixed_adds SELECT * FROM name_conflicts;

    DELETE FROM name_conflicts;

    INSERT INTO idempotency_keys (build_id, key, step_id)
    SELECT NEW.build_id, NEW.key, step_id FROM responses WHERE request = NEW.request
    ON CONFLICT DO NOTHING;
END;

-- N3: the new name is the first 50 - len('_k') code points of the requested name and then _k, for the smallest free k.
-- The same rule as steps_core::naming, with a hint for each prefix and number of digits (N5).
CREATE TEMP TRIGGER add_step_with_suffix INSTEAD OF INSERT ON suffixed_adds BEGIN
    DELETE FROM tried_suffixes;

    -- Starts at the hint and counts up while the name is taken. After the last k of a number of digits, the search
    -- continues with one digit more.
    INSERT INTO tried_suffixes (digits, prefix, next)
    SELECT digits, prefix, max(k)
    FROM (
        WITH RECURSIVE search (digits, prefix, k, past) AS (
            SELECT 1, substr(NEW.name, 1, 48), coalesce((
                SELECT next FROM suffix_hints
                WHERE build_id = NEW.build_id AND prefix = substr(NEW.name, 1, 48) AND digits = 1
            ), 1), 10
            UNION ALL
            SELECT digits, prefix, k + 1, past
            FROM search
            WHERE k < past
              AND EXISTS (SELECT 1 FROM steps WHERE build_id = NEW.build_id AND name = prefix || '_' || k)
            UNION ALL
            SELECT digits + 1, substr(NEW.name, 1, 48 - digits), coalesce((
                SELECT next FROM suffix_hints
                WHERE build_id = NEW.build_id
                  AND prefix = substr(NEW.name, 1, 48 - search.digits)
                  AND digits = search.digits + 1
            ), past), past * 10
            FROM search
            WHERE k = past
        )
        SELECT digits, prefix, k FROM search
    )
    GROUP BY digits;

    INSERT INTO suffix_hints (build_id, prefix, digits, next)
    SELECT NEW.build_id, prefix, digits, next FROM tried_suffixes WHERE true
    ON CONFLICT (build_id, prefix, digits) DO UPDATE SET next = excluded.next WHERE next <> excluded.next;

    -- Adds the step under the new name. If the build is full, the add lands in `name_conflicts` again. The caller of
    -- this trigger clears that table, so the request has no response (I4).
    INSERT INTO adds (request, build_id, name, state_string)
    SELECT NEW.request, NEW.build_id, prefix || '_' || next, NEW.state_string
    FROM tried_suffixes ORDER BY digits DESC LIMIT 1;
END;
