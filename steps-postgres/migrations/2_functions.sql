-- The functions that a batch of writes calls. All read and write under READ COMMITTED, where each statement
-- sees what was committed before it began: what is read after a lock was taken is never older than the lock.

-- N3: the first 50 - len('_k') code points of the requested name and _k, for the smallest free k, added with
-- the next number. As steps_core::naming, with a hint for each prefix and number of digits (N5). The caller has
-- the build's lock and found the name taken. Null: the build has no number left (I4).
CREATE FUNCTION add_step_with_suffix(
    of_build BIGINT, requested TEXT, state TEXT, OUT id BIGINT, OUT number BIGINT, OUT name TEXT
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    digit_count INTEGER := 1;
    past        BIGINT  := 10;
    cut         TEXT;
    hint        BIGINT;
    k           BIGINT;
BEGIN
    LOOP
        cut := left(requested, 49 - digit_count);
        hint := (SELECT next FROM suffix_hints
                 WHERE build_id = of_build AND prefix = cut AND digits = digit_count);
        k := coalesce(hint, past / 10);
        WHILE k < past
            AND EXISTS (SELECT FROM steps WHERE build_id = of_build AND steps.name = cut || '_' || k) LOOP
            k := k + 1;
        END LOOP;

        -- The one that is free now is taken by this add.
        IF hint IS NULL THEN
            INSERT INTO suffix_hints (build_id, prefix, digits, next)
            VALUES (of_build, cut, digit_count, least(k + 1, past));
        ELSIF hint < past THEN
            UPDATE suffix_hints SET next = least(k + 1, past)
            WHERE build_id = of_build AND prefix = cut AND digits = digit_count;
        END IF;

        EXIT WHEN k < past;
        digit_count := digit_count + 1;
        past := past * 10;
    END LOOP;

    INSERT INTO steps (build_id, number, name, state_string)
    SELECT of_build, last + 1, cut || '_' || k, state
    FROM (SELECT max(number) AS last FROM steps WHERE build_id = of_build) numbers
    WHERE last < 4294967295
    RETURNING steps.id, steps.number, steps.name INTO id, number, name;
END
$$;

-- By which advisory lock all who add to a build take turns (I2): others may keep builds of the same number in another
-- schema, whose tables have other ids.
CREATE FUNCTION lock_of(build BIGINT) RETURNS BIGINT LANGUAGE sql STABLE AS $$
    SELECT hashint8extended(build, 'steps'::regclass::oid::BIGINT)
$$;

-- I2, I4, I5, N2: an add with or without a key. The caller has the build's lock. Null: the build has no number left.
CREATE FUNCTION add_step(
    of_build BIGINT, requested TEXT, state TEXT, with_key TEXT, OUT id BIGINT, OUT number BIGINT, OUT name TEXT
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    IF with_key IS NOT NULL THEN
        SELECT steps.id, steps.number, steps.name INTO id, number, name
        FROM idempotency_keys JOIN steps ON steps.id = step_id
        WHERE idempotency_keys.build_id = of_build AND key = with_key;
        IF FOUND THEN
            RETURN;
        END IF;
    END IF;

    -- The id that is drawn for a step whose name is taken is left out; its number is given to the next.
    INSERT INTO steps (build_id, number, name, state_string)
    SELECT of_build, next, requested, state
    FROM (SELECT coalesce(max(number), -1) + 1 AS next FROM steps WHERE build_id = of_build) numbers
    WHERE next <= 4294967295
    ON CONFLICT (build_id, name) DO NOTHING
    RETURNING steps.id, steps.number, steps.name INTO id, number, name;
    IF NOT FOUND THEN
        SELECT * INTO id, number, name FROM add_step_with_suffix(of_build, requested, state);
    END IF;

    IF with_key IS NOT NULL AND id IS NOT NULL THEN
        INSERT INTO idempotency_keys (build_id, key, step_id) VALUES (of_build, with_key, add_step.id);
    END IF;
END
$$;

-- One batch: adds, changes and urls, with an array for each of their columns.
-- The adds come in the order of their requests; `keys` are idempotency keys. `numbers_seen` has for each a number that its
-- build had, or 0: the search for the greatest begins there. `firsts` is null for an add with a key and for one with a name
-- that an earlier one has; else it says whether the add is the first such one of its build.
-- The changes come one a step, in the order of the ids, and name all steps that the batch changes or adds urls to. Null
-- leaves a column as it is.
-- The urls come in the order of their requests, no pair twice a step.
--
-- The answer has a row for each add that was carried out, with its place among the adds, counted from 1: one without
-- found no number to give. And it has a row for each step that is there, with its id and without a place.
-- What would wait for a lock, on a step with skips_steps or on a build with skips_builds, is not carried out, and its
-- row says so: the others need not wait with it.
--
-- Two batches never wait for each other in a circle: each locks its builds in the order of their keys, and
-- then its steps in the order of their ids, before it changes anything.
--
-- Every statement stands in this function or in one of the same language: of these, the server keeps plans.
CREATE FUNCTION write_batch(
    builds BIGINT[], names TEXT[], states TEXT[], keys TEXT[], numbers_seen BIGINT[], firsts BOOLEAN[],
    changed BIGINT[], starts TIMESTAMPTZ[], lock_times TIMESTAMPTZ[], state_strings TEXT[], ends TIMESTAMPTZ[],
    codes INTEGER[], hides BOOLEAN[],
    url_steps BIGINT[], digests BYTEA[], url_names TEXT[], url_texts TEXT[],
    skips_steps BOOLEAN, skips_builds BOOLEAN
)
RETURNS TABLE (place BIGINT, id BIGINT, number BIGINT, name TEXT, is_locked BOOLEAN) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    plain  RECORD;
    locked BIGINT[];
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE 'a batch needs READ COMMITTED' USING ERRCODE = 'invalid_transaction_state';
    END IF;

    IF cardinality(builds) > 0 THEN
        IF skips_builds THEN
            is_locked := true;
            FOR i IN 1 .. cardinality(builds) LOOP
                IF NOT pg_try_advisory_xact_lock(lock_of(builds[i])) THEN
                    builds[i] := NULL;
                    place := i;
                    RETURN NEXT;
                END IF;
            END LOOP;
        ELSE
            -- I2: in a statement of its own, so that what is read next is not older than the locks.
            PERFORM pg_advisory_xact_lock(key)
            FROM (SELECT DISTINCT lock_of(build) AS key FROM unnest(builds) AS build ORDER BY key) locks;
        END IF;
        is_locked := false;

        -- I2, N2: at once all that have no key and whose name is free, one of each name. A single one is faster below.
        IF cardinality(builds) > 1 THEN
            FOR plain IN
                WITH asked AS (
                    -- Subqueries of one value are always looked up in the index; the planner may make a join of an
                    -- EXISTS, and read all steps for it.
                    SELECT place, build, name, state,
                           (SELECT true FROM steps WHERE steps.build_id = build AND steps.name = adds.name) IS NULL
                               AS is_free,
                           CASE WHEN is_first THEN coalesce(
                               (SELECT max(number) FROM steps WHERE steps.build_id = build AND number >= number_seen),
                               (SELECT max(number) FROM steps WHERE steps.build_id = build), -1) END AS last
                    FROM unnest(builds, names COLLATE "C", states, numbers_seen, firsts) WITH ORDINALITY
                        AS adds (build, name, state, number_seen, is_first, place)
                    WHERE build IS NOT NULL AND is_first IS NOT NULL
                ), numbered AS MATERIALIZED (
                    -- In the order of the numbers: a later step of a build has a greater id (I1).
                    SELECT nextval('steps_id_seq') AS id, place, build, number, name, state
                    FROM (
                        SELECT place, build, name, state, is_free,
                               max(last) OVER up_to_this + count(*) FILTER (WHERE is_free) OVER up_to_this AS number
                        FROM asked
                        WINDOW up_to_this AS (PARTITION BY build ORDER BY place ROWS UNBOUNDED PRECEDING)
                        ORDER BY build, place
                    ) ordered
                    WHERE is_free AND number <= 4294967295
                ), added AS (
                    INSERT INTO steps (id, build_id, number, name, state_string) OVERRIDING SYSTEM VALUE
                    SELECT id, build, number, name, state FROM numbered
                )
                SELECT place, id, number, name FROM numbered
            LOOP
                builds[plain.place] := NULL;
                place := plain.place; id := plain.id; number := plain.number; name := plain.name;
                RETURN NEXT;
            END LOOP;
        END IF;

        FOR i IN 1 .. cardinality(builds) LOOP
            CONTINUE WHEN builds[i] IS NULL;
            place := i;
            SELECT added.* INTO id, number, name FROM add_step(builds[i], names[i], states[i], keys[i]) AS added;
            IF id IS NOT NULL THEN
                RETURN NEXT;
            END IF;
        END LOOP;
    END IF;

    IF cardinality(changed) = 0 THEN
        RETURN;
    END IF;
    IF skips_steps THEN
        locked := ARRAY(SELECT steps.id FROM steps WHERE steps.id = ANY (changed)
                        ORDER BY steps.id FOR NO KEY UPDATE SKIP LOCKED);
        RETURN QUERY
        SELECT NULL::BIGINT, steps.id, NULL::BIGINT, NULL::TEXT, true
        FROM steps WHERE steps.id = ANY (changed) AND NOT steps.id = ANY (locked);
    ELSE
        locked := ARRAY(SELECT steps.id FROM steps WHERE steps.id = ANY (changed)
                        ORDER BY steps.id FOR NO KEY UPDATE);
    END IF;

    -- U1, U2: in statements after the lock, which see all urls that the steps have.
    IF cardinality(url_steps) > 0 THEN
        INSERT INTO step_urls (step_id, position, digest, name, url)
        SELECT step,
               (SELECT urls FROM steps WHERE steps.id = step) - 1 + row_number() OVER (PARTITION BY step ORDER BY place),
               digest, url_name, url_text
        FROM unnest(url_steps, digests, url_names, url_texts) WITH ORDINALITY
            AS asked (step, digest, url_name, url_text, place)
        WHERE step = ANY (locked)
            AND (SELECT true FROM step_urls WHERE step_id = step AND step_urls.digest = asked.digest) IS NULL;
    END IF;

    -- L2 to L4. L6: those that are there; a step is never deleted.
    RETURN QUERY
    UPDATE steps
    SET started_at = coalesce(start, started_at),
        locks_acquired_at = coalesce(lock_time, locks_acquired_at),
        state_string = coalesce(state, state_string),
        complete_at = coalesce("end", complete_at),
        results = coalesce(code, results),
        hidden = coalesce(hides, hidden),
        urls = CASE WHEN step = ANY (url_steps)
            THEN (SELECT max(position) + 1 FROM step_urls WHERE step_id = step) ELSE urls END
    FROM unnest(changed, starts, lock_times, state_strings, ends, codes, hides)
        AS changes (step, start, lock_time, state, "end", code, hides)
    WHERE steps.id = step AND step = ANY (locked)
    RETURNING NULL::BIGINT, steps.id, NULL::BIGINT, NULL::TEXT, false;
END
$$;
