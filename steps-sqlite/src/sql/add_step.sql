-- I2, I4, N2: the next number, and the name as requested. A row is skipped where the name is taken or the number
-- is past the greatest, which the table's constraints say; the id that was drawn for it is left out (I1). A plain
-- max() in a query of its own looks at one entry of the index; with a HAVING, or in a FROM, it would look at all (N5).
CREATE TEMP TRIGGER add_step INSTEAD OF INSERT ON adds BEGIN
    INSERT OR IGNORE INTO steps (build_id, number, name, state_string)
    VALUES (
        NEW.build_id,
        coalesce((SELECT max(number) FROM steps WHERE build_id = NEW.build_id), -1) + 1,
        NEW.name,
        NEW.state_string
    );

    INSERT INTO answers (request, step_id) SELECT NEW.request, last_insert_rowid() WHERE changes() = 1;

    INSERT INTO taken (request, build_id, name, state_string)
    SELECT NEW.request, NEW.build_id, NEW.name, NEW.state_string WHERE changes() = 0;
END;

-- I5: a key that the build knows gets the answer that it got.
CREATE TEMP TRIGGER add_step_with_key INSTEAD OF INSERT ON keyed_adds BEGIN
    INSERT INTO answers (request, step_id)
    SELECT NEW.request, step_id FROM idempotency_keys WHERE build_id = NEW.build_id AND key = NEW.key;

    INSERT INTO adds (request, build_id, name, state_string)
    SELECT NEW.request, NEW.build_id, NEW.name, NEW.state_string WHERE changes() = 0;

    INSERT INTO collisions SELECT * FROM taken;

    DELETE FROM taken;

    INSERT INTO idempotency_keys (build_id, key, step_id)
    SELECT NEW.build_id, NEW.key, step_id FROM answers WHERE request = NEW.request
    ON CONFLICT DO NOTHING;
END;

-- N3: the first 50 - len('_k') code points of the requested name and _k, for the smallest free k. As
-- steps_core::naming, with a hint for each prefix and number of digits (N5).
CREATE TEMP TRIGGER add_step_with_suffix INSTEAD OF INSERT ON collisions BEGIN
    DELETE FROM searched;

    -- From the hint on while the name is taken; past the last k of so many digits, on with one digit more.
    INSERT INTO searched (digits, prefix, next)
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
    SELECT NEW.build_id, prefix, digits, next FROM searched WHERE true
    ON CONFLICT (build_id, prefix, digits) DO UPDATE SET next = excluded.next WHERE next <> excluded.next;

    -- As any other add, under the name that was found. Without a number left it is among the taken again, and in
    -- vain: whoever looked for suffixes takes all away.
    INSERT INTO adds (request, build_id, name, state_string)
    SELECT NEW.request, NEW.build_id, prefix || '_' || next, NEW.state_string
    FROM searched ORDER BY digits DESC LIMIT 1;
END;
