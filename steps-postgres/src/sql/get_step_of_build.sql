-- R1: $1 to $3 are the builds, numbers and names of the selectors, of which the number or the name is null. See
-- get_steps.sql for the columns of the answer; the first is the place of the selector, counted from 1.
SELECT place, whole_steps.*
FROM unnest($1::BIGINT[], $2::BIGINT[], $3::TEXT[] COLLATE "C") WITH ORDINALITY
    AS asked (build_id, number, name, place)
JOIN whole_steps ON whole_steps.id = coalesce(
    (SELECT id FROM steps WHERE steps.build_id = asked.build_id AND steps.number = asked.number),
    (SELECT id FROM steps WHERE steps.build_id = asked.build_id AND steps.name = asked.name))
