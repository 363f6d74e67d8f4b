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
-- schema.
CREATE FUNCTION lock_of(build BIGINT) RETURNS BIGINT LANGUAGE sql STABLE AS $$
    SELECT hashint8extended(build, quote_ident(current_schema())::regnamespace::oid::BIGINT)
$$;

-- I2, I4, I5, N2: an add with or without a key. Alone it is a batch of its own. Null: the build has no number left.
CREATE FUNCTION add_step(
    of_build BIGINT, requested TEXT, state TEXT, with_key TEXT, OUT id BIGINT, OUT number BIGINT, OUT name TEXT
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    lock TEXT;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE 'an add needs READ COMMITTED' USING ERRCODE = 'invalid_transaction_state';
    END IF;

    -- In a statement of its own, so that what is read next is not older than the lock.
    lock := pg_advisory_xact_lock(lock_of(of_build));
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
    SELECT of_build, last + 1, requested, state
    FROM (SELECT coalesce((SELECT max(number) FROM steps WHERE build_id = of_build), -1) AS last) numbers
    WHERE last < 4294967295
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

-- I2, N2: all adds of a batch at once that have no key and whose name is free, one of each name. The caller has
-- the builds' locks. Those without an answer are for add_step.
CREATE FUNCTION add_steps_of_free_names(requests BIGINT[], of_builds BIGINT[], requested TEXT[], states TEXT[])
RETURNS TABLE (request BIGINT, id BIGINT, number BIGINT, name TEXT) LANGUAGE sql AS $$
    WITH asked AS (
        SELECT DISTINCT ON (build, name) request, build, name, state
        FROM unnest(requests, of_builds, requested COLLATE "C", states) AS asked (request, build, name, state)
        ORDER BY build, name, request
    ), free AS (
        -- Subqueries of one value are always looked up in the index; the planner may make a join of an EXISTS,
        -- and read all steps for it.
        SELECT request, build, name, state,
               row_number() OVER (PARTITION BY build ORDER BY request) AS nth
        FROM asked
        WHERE (SELECT true FROM steps WHERE steps.build_id = build AND steps.name = asked.name) IS NULL
    ), lasts AS (
        SELECT request, build, name, state, nth, CASE WHEN nth = 1 THEN coalesce(
            (SELECT max(number) FROM steps WHERE steps.build_id = build), -1) END AS last
        FROM free
    ), numbered AS MATERIALIZED (
        -- In the order of the numbers: a later step of a build has a greater id (I1).
        SELECT nextval('steps_id_seq') AS id, request, build, number, name, state
        FROM (
            SELECT request, build, max(last) OVER (PARTITION BY build) + nth AS number, name, state
            FROM lasts
            ORDER BY build, nth
        ) ordered
        WHERE number <= 4294967295
    ), added AS (
        INSERT INTO steps (id, build_id, number, name, state_string) OVERRIDING SYSTEM VALUE
        SELECT id, build, number, name, state FROM numbered
    )
    SELECT request, id, number, name FROM numbered
$$;

-- U1, U2: the caller has the lock of the step's row, which is there.
CREATE FUNCTION add_url(of_step BIGINT, pair_digest BYTEA, url_name TEXT, url_text TEXT)
RETURNS VOID LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO step_urls (step_id, position, digest, name, url)
    SELECT id, urls, pair_digest, url_name, url_text FROM steps WHERE id = of_step
    ON CONFLICT (step_id, digest) DO NOTHING;
    IF FOUND THEN
        UPDATE steps SET urls = urls + 1 WHERE id = of_step;
    END IF;
END
$$;

-- One batch: an array for each column of the requests, which are numbered from 1. `target` is the build of an
-- add and the step of every other operation; `text` is a state string or a url; `key` is an idempotency key.
-- The answer has a row for each request that was carried out: one without found no step to change, or no number
-- to give. A request that would wait for a lock, on a step with skips_steps or on a build with skips_builds, is
-- not carried out, and its row says so: the others need not wait with it.
--
-- Two batches never wait for each other in a circle: each locks its builds in the order of their keys, and
-- then its steps in the order of their ids, before it changes anything.
CREATE FUNCTION write_batch(
    operations TEXT[], targets BIGINT[], names TEXT[], texts TEXT[], keys TEXT[], digests BYTEA[],
    times TIMESTAMPTZ[], codes INTEGER[], flags BOOLEAN[], skips_steps BOOLEAN, skips_builds BOOLEAN
)
RETURNS TABLE (request BIGINT, id BIGINT, number BIGINT, name TEXT, is_locked BOOLEAN) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    answered BOOLEAN[] := array_fill(false, ARRAY[cardinality(operations)]);
    asked    BIGINT[];
    steps_of BIGINT[];
    locked   BIGINT[];
    plain    RECORD;
    free     RECORD;
    added    RECORD;
    operation TEXT;
    target   BIGINT;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE 'a batch needs READ COMMITTED' USING ERRCODE = 'invalid_transaction_state';
    END IF;

    is_locked := true;
    IF skips_builds THEN
        FOR i IN 1 .. cardinality(operations) LOOP
            IF operations[i] = 'add_step' AND NOT pg_try_advisory_xact_lock(lock_of(targets[i])) THEN
                operations[i] := NULL;
                request := i;
                RETURN NEXT;
            END IF;
        END LOOP;
    END IF;
    is_locked := false;

    IF 'add_step' = ANY (operations) THEN
        -- I2: in a statement of its own, so that what is read next is not older than the locks.
        PERFORM pg_advisory_xact_lock(key)
        FROM (
            SELECT DISTINCT lock_of(target) AS key
            FROM unnest(operations, targets) AS requests (operation, target)
            WHERE operation = 'add_step'
            ORDER BY key
        ) builds;

        SELECT array_agg(request) AS requests, array_agg(target) AS builds, array_agg(name) AS names,
               array_agg(text) AS states
        INTO plain
        FROM unnest(operations, targets, names, texts, keys) WITH ORDINALITY
            AS requests (operation, target, name, text, key, request)
        WHERE operation = 'add_step' AND key IS NULL;
        FOR free IN SELECT * FROM add_steps_of_free_names(plain.requests, plain.builds, plain.names, plain.states)
        LOOP
            answered[free.request] := true;
            request := free.request; id := free.id; number := free.number; name := free.name;
            RETURN NEXT;
        END LOOP;

        FOR i IN 1 .. cardinality(operations) LOOP
            IF operations[i] = 'add_step' AND NOT answered[i] THEN
                SELECT * INTO added FROM add_step(targets[i], names[i], texts[i], keys[i]);
                IF added.id IS NOT NULL THEN
                    request := i; id := added.id; number := added.number; name := added.name;
                    RETURN NEXT;
                END IF;
            END IF;
        END LOOP;
        IF 'add_step' = ALL (operations) THEN
            RETURN;
        END IF;
        id := NULL; number := NULL; name := NULL;
    END IF;

    -- L6: those that are there; a step is never deleted.
    asked := ARRAY(SELECT DISTINCT target FROM unnest(operations, targets) AS requests (operation, target)
                   WHERE operation <> 'add_step');
    IF skips_steps THEN
        steps_of := ARRAY(SELECT steps.id FROM steps WHERE steps.id = ANY (asked)
                          ORDER BY steps.id FOR NO KEY UPDATE SKIP LOCKED);
        locked := ARRAY(SELECT steps.id FROM steps WHERE steps.id = ANY (asked) AND NOT steps.id = ANY (steps_of));
    ELSE
        steps_of := ARRAY(SELECT steps.id FROM steps WHERE steps.id = ANY (asked)
                          ORDER BY steps.id FOR NO KEY UPDATE);
        locked := '{}';
    END IF;

    FOR i IN 1 .. cardinality(operations) LOOP
        operation := operations[i];
        target := targets[i];
        is_locked := target = ANY (locked);
        CONTINUE WHEN operation IS NULL OR operation = 'add_step' OR NOT (target = ANY (steps_of) OR is_locked);
        request := i;
        IF is_locked THEN
            RETURN NEXT;
            CONTINUE;
        END IF;
        CASE operation
            WHEN 'start_step' THEN  -- L2
                UPDATE steps
                SET started_at = times[i],
                    locks_acquired_at = CASE WHEN flags[i] THEN times[i] ELSE locks_acquired_at END
                WHERE steps.id = target;
            WHEN 'set_step_locks_acquired_at' THEN  -- L3
                UPDATE steps SET locks_acquired_at = times[i] WHERE steps.id = target;
            WHEN 'set_step_state_string' THEN  -- L3
                UPDATE steps SET state_string = texts[i] WHERE steps.id = target;
            WHEN 'finish_step' THEN  -- L4
                UPDATE steps SET complete_at = times[i], results = codes[i], hidden = flags[i] WHERE steps.id = target;
            WHEN 'add_url' THEN
                PERFORM add_url(target, digests[i], names[i], texts[i]);
        END CASE;
        RETURN NEXT;
    END LOOP;
END
$$;
