-- R1: $1 to $3 are the builds, numbers and names of the selectors; either the number or the name of a selector is null.
-- The first column is the index of the selector, counted from 1; the others are those of whole_steps.
SELECT index, whole_steps.*
FROM unnest($1::BIGINT[], $2::BIGINT[], $3::TEXT[] COLLATE "C") WITH ORDINALITY
    AS selectors (build_id, number, name, index)
JOIN whole_steps ON whole_steps.id = coalesce(
    (SELECT id FROM steps WHERE steps.build_id = selectors.build_id AND steps.number = selectors.number),
    (SELECT id FROM steps WHERE steps.build_id = selectors.build_id AND steps.name = selectors.name))
