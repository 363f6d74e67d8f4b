CREATE TEMP TRIGGER add_step INSTEAD OF INSERT ON requests WHEN NEW.operation = 'add_step' BEGIN
    -- I5: a key that the build knows gets the answer that it got.
    INSERT INTO answers (request, id, number, name)
    SELECT NEW.request, steps.id, steps.number, steps.name
    FROM idempotency_keys JOIN steps ON steps.id = step_id
    WHERE idempotency_keys.build_id = NEW.target AND key = NEW.key;

    -- I2, I4, N2: the next number, and the name as requested where it is free. A plain max() in a query of
    -- its own looks at one entry of the index; with a HAVING, or in a FROM, it would look at all (N5).
    INSERT INTO steps (build_id, number, name, state_string)
    SELECT NEW.target, coalesce((SELECT max(number) FROM steps WHERE build_id = NEW.target), -1) + 1, NEW.name, NEW.text
    WHERE changes() = 0
      AND NOT EXISTS (SELECT 1 FROM steps WHERE build_id = NEW.target AND name = NEW.name)
      AND NOT EXISTS (SELECT 1 FROM steps WHERE build_id = NEW.target AND number = 4294967295);

    INSERT INTO answers (request, id, number, name)
    SELECT NEW.request, id, number, name FROM steps WHERE changes() = 1 AND id = last_insert_rowid();

    INSERT INTO collisions (request, build_id, name, state_string)
    SELECT NEW.request, NEW.target, NEW.name, NEW.text
    WHERE NOT EXISTS (SELECT 1 FROM answers WHERE request = NEW.request);

    -- Without a key, nothing.
    INSERT INTO idempotency_keys (build_id, key, step_id)
    SELECT NEW.target, NEW.key, id FROM answers WHERE NEW.key IS NOT NULL AND request = NEW.request
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

    INSERT INTO steps (build_id, number, name, state_string)
    SELECT NEW.build_id, (SELECT max(number) FROM steps WHERE build_id = NEW.build_id) + 1, prefix || '_' || next,
           NEW.state_string
    FROM searched
    WHERE NOT EXISTS (SELECT 1 FROM steps WHERE build_id = NEW.build_id AND number = 4294967295)
    ORDER BY digits DESC LIMIT 1;

    INSERT INTO answers (request, id, number, name)
    SELECT NEW.request, id, number, name FROM steps WHERE changes() = 1 AND id = last_insert_rowid();
END;
