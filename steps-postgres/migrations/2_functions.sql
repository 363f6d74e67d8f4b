-- The functions behind write_batch. All of them need READ COMMITTED: each statement then sees everything that was
-- committed before it began, so a statement that follows a lock never sees data from before the lock.

-- N3: adds a step whose requested name is taken. The step gets the first 50 - len('_k') code points of the
-- requested name and _k, for the smallest free k: the rule of steps_core::naming, with a hint for each prefix and
-- number of digits (N5). The caller holds the build's lock. Returns nulls if the build has no number left (I4).
CREATE FUNCTION add_step_with_suffix(
    build BIGINT, requested_name TEXT, state TEXT, OUT id BIGINT, OUT number BIGINT, OUT name TEXT
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    digit_count INTEGER := 1;
    k_end       BIGINT  := 10;
    truncated   TEXT;
    hint        BIGINT;
    k           BIGINT;
BEGIN
    LOOP
        truncated := left(requested_name, 49 - digit_count);
        hint := (SELECT next FROM suffix_hints
                 WHERE build_id = build AND prefix = truncated AND digits = digit_count);
        k := coalesce(hint, k_end / 10);
        WHILE k < k_end
            AND EXISTS (SELECT FROM steps WHERE build_id = build AND steps.name = truncated || '_' || k) LOOP
            k := k + 1;
        END LOOP;

        -- This add takes the free k, so the next search begins behind it.
        IF hint IS NULL THEN
            INSERT INTO suffix_hints (build_id, prefix, digits, next)
            VALUES (build, truncated, digit_count, least(k + 1, k_end));
        ELSIF hint < k_end THEN
            UPDATE suffix_hints SET next = least(k + 1, k_end)
            WHERE build_id = build AND prefix = truncated AND digits = digit_count;
        END IF;

        EXIT WHEN k < k_end;
        digit_count := digit_count + 1;
        k_end := k_end * 10;
    END LOOP;

    INSERT INTO steps (build_id, number, name, state_string)
    SELECT build, last + 1, truncated || '_' || k, state
    FROM (SELECT max(number) AS last FROM steps WHERE build_id = build) numbers
    WHERE last < 4294967295
    RETURNING steps.id, steps.number, steps.name INTO id, number, name;
END
$$;

-- I2: the key of the advisory lock that serializes the adds to a build. The table's OID is part of it, because another
-- schema of the database may have builds with the same ids.
CREATE FUNCTION build_lock_key(build BIGINT) RETURNS BIGINT LANGUAGE sql STABLE AS $$
    SELECT hashint8extended(build, 'steps'::regclass::oid::BIGINT)
$$;

-- I2, I4, I5, N2: adds a step, with or without an idempotency key. The caller holds the build's lock. Returns nulls
-- if the build has no number left.
CREATE FUNCTION add_step(
    build BIGINT, requested_name TEXT, state TEXT, idempotency_key TEXT,
    OUT id BIGINT, OUT number BIGINT, OUT name TEXT
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    IF idempotency_key IS NOT NULL THEN
        SELECT steps.id, steps.number, steps.name INTO id, number, name
        FROM idempotency_keys JOIN steps ON steps.id = step_id
        WHERE idempotency_keys.build_id = build AND key = idempotency_key;
        IF FOUND THEN
            RETURN;
        END IF;
    END IF;

    -- If the name is taken, the id drawn from the sequence is lost. The number is not: the next add gets it.
    INSERT INTO steps (build_id, number, name, state_string)
    SELECT build, next, requested_name, state
    FROM (SELECT coalesce(max(number), -1) + 1 AS next FROM steps WHERE build_id = build) numbers
    WHERE next <= 4294967295
    ON CONFLICT (build_id, name) DO NOTHING
    RETURNING steps.id, steps.number, steps.name INTO id, number, name;
    IF NOT FOUND THEN
        SELECT * INTO id, number, name FROM add_step_with_suffix(build, requested_name, state);
    END IF;

    IF idempotency_key IS NOT NULL AND id IS NOT NULL THEN
        INSERT INTO idempotency_keys (build_id, key, step_id) VALUES (build, idempotency_key, add_step.id);
    END IF;
END
$$;

-- Carries out a batch of writes. Each parameter is one column of the adds, of the updates or of the urls:
--
-- add_*     The adds, in the order of their requests. `add_is_plain` is true for an add without an idempotency key,
--           unless an earlier plain add of the batch has the same build and name.
-- update_*  A row for each step that the batch updates or adds a url to, in the order of the ids. Null leaves a
--           column of the step unchanged.
-- url_*     The urls, in the order of their requests, each pair of name and url once a step.
--
-- Returns a row for each step that was added, with the index of the add in `add_index`, counted from 1: an add
-- without a row found no number left (I4). Also returns a row for each step of update_ids that exists (L6), with
-- `add_index` null.
--
-- Batches cannot deadlock with each other: each locks its builds in the order of their lock keys, then its steps in the
-- order of their ids, and only then changes anything.
--
-- All statements stand in plpgsql functions, because the server caches the plans of these.
CREATE FUNCTION write_batch(
    add_builds BIGINT[], add_names TEXT[], add_states TEXT[], add_keys TEXT[], add_is_plain BOOLEAN[],
    update_ids BIGINT[], update_started_at TIMESTAMPTZ[], update_locks_acquired_at TIMESTAMPTZ[],
    update_state_strings TEXT[], update_complete_at TIMESTAMPTZ[], update_results INTEGER[], update_hidden BOOLEAN[],
    url_step_ids BIGINT[], url_digests BYTEA[], url_names TEXT[], url_texts TEXT[]
)
RETURNS TABLE (add_index BIGINT, id BIGINT, number BIGINT, name TEXT) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    plain  RECORD;
    locked BIGINT[];
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE 'a batch needs READ COMMITTED' USING ERRCODE = 'invalid_transaction_state';
    END IF;

    IF cardinality(add_builds) > 0 THEN
        -- I2: a statement of its own, so that the next ones see all steps that were added before the lock was granted.
        PERFORM pg_advisory_xact_lock(key)
        FROM (SELECT DISTINCT build_lock_key(build) AS key FROM unnest(add_builds) AS build ORDER BY key) locks;

        -- I2, N2: all plain adds whose names are free, in one statement. For a single add the loop below is faster.
        IF cardinality(add_builds) > 1 THEN
            FOR plain IN
                WITH free AS (
                    -- A scalar subquery always uses the index. The planner may turn an EXISTS into a join that reads
                    -- all steps.
                    SELECT index, build, name, state, row_number() OVER (PARTITION BY build ORDER BY index) AS nth
                    FROM unnest(add_builds, add_names COLLATE "C", add_states, add_is_plain) WITH ORDINALITY
                        AS adds (build, name, state, is_plain, index)
                    WHERE is_plain
                        AND (SELECT true FROM steps WHERE steps.build_id = build AND steps.name = adds.name) IS NULL
                ), numbered AS MATERIALIZED (
                    -- Ids are drawn in the order of the numbers: a later step of a build has a greater id (I1).
                    SELECT nextval('steps_id_seq') AS id, index, build, number, name, state
                    FROM (
                        -- The last number of a build is looked up once, with the build's first add.
                        SELECT index, build, name, state,
                               nth + max(CASE WHEN nth = 1 THEN
                                   (SELECT coalesce(max(number), -1) FROM steps WHERE build_id = build)
                               END) OVER (PARTITION BY build) AS number
                        FROM free
                        ORDER BY build, nth
                    ) ordered
                    WHERE number <= 4294967295
                ), added AS (
                    INSERT INTO steps (id, build_id, number, name, state_string) OVERRIDING SYSTEM VALUE
                    SELECT id, build, number, name, state FROM numbered
                )
                SELECT index, id, number, name FROM numbered
            LOOP
                -- Null tells the loop below that this add is done.
                add_builds[plain.index] := NULL;
                add_index := plain.index;
                id := plain.id;
                number := plain.number;
                name := plain.name;
                RETURN NEXT;
            END LOOP;
        END IF;

        FOR i IN 1 .. cardinality(add_builds) LOOP
            CONTINUE WHEN add_builds[i] IS NULL;
            add_index := i;
            SELECT added.* INTO id, number, name
            FROM add_step(add_builds[i], add_names[i], add_states[i], add_keys[i]) AS added;
            IF id IS NOT NULL THEN
                RETURN NEXT;
            END IF;
        END LOOP;
    END IF;

    IF cardinality(update_ids) = 0 THEN
        RETURN;
    END IF;
    locked := ARRAY(SELECT steps.id FROM steps WHERE steps.id = ANY (update_ids)
                    ORDER BY steps.id FOR NO KEY UPDATE);

    -- U1, U2: statements of their own, which see all urls that were added before the locks were granted.
    IF cardinality(url_step_ids) > 0 THEN
        INSERT INTO step_urls (step_id, position, digest, name, url)
        SELECT step,
               (SELECT urls FROM steps WHERE steps.id = step) - 1
                   + row_number() OVER (PARTITION BY step ORDER BY index),
               digest, url_name, url_text
        FROM unnest(url_step_ids, url_digests, url_names, url_texts) WITH ORDINALITY
            AS requested (step, digest, url_name, url_text, index)
        WHERE step = ANY (locked)
            AND (SELECT true FROM step_urls WHERE step_id = step AND step_urls.digest = requested.digest) IS NULL;
    END IF;

    -- L2 to L4. L6: `locked` has the steps that existed when the locks were taken; a step is never deleted.
    RETURN QUERY
    UPDATE steps
    SET started_at = coalesce(new_started_at, started_at),
        locks_acquired_at = coalesce(new_locks_acquired_at, locks_acquired_at),
        state_string = coalesce(new_state_string, state_string),
        complete_at = coalesce(new_complete_at, complete_at),
        results = coalesce(new_results, results),
        hidden = coalesce(new_hidden, hidden),
        urls = CASE WHEN step = ANY (url_step_ids)
            THEN (SELECT max(position) + 1 FROM step_urls WHERE step_id = step) ELSE urls END
    FROM unnest(update_ids, update_started_at, update_locks_acquired_at, update_state_strings, update_complete_at,
                update_results, update_hidden)
        AS updates (step, new_started_at, new_locks_acquired_at, new_state_string, new_complete_at, new_results,
                    new_hidden)
    WHERE steps.id = step AND step = ANY (locked)
    RETURNING NULL::BIGINT, steps.id, NULL::BIGINT, NULL::TEXT;
END
$$;
