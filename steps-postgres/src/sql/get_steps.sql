-- R2: $1 is an array of build ids. A single statement has a single snapshot. The first column is the build; the
-- others are those of whole_steps.
SELECT build_id, * FROM whole_steps WHERE build_id = ANY ($1)
