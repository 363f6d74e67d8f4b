-- One batch in one transaction. See migrations/2_functions.sql.
SELECT place, id, number, name, is_locked
FROM write_batch($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19)
