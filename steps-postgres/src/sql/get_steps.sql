-- R2: $1 are builds. One statement, so one snapshot. The first column says which build a step was found for; see the
-- view for the others.
SELECT build_id, * FROM whole_steps WHERE build_id = ANY ($1)
