-- R1: $1 is an array of step ids. The first column is the id; the others are those of whole_steps.
SELECT id, * FROM whole_steps WHERE id = ANY ($1)
