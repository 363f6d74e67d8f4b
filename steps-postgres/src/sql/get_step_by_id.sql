-- R1: $1 are ids. See get_steps.sql for the columns of the answer; the first is the id.
SELECT id, * FROM whole_steps WHERE id = ANY ($1)
