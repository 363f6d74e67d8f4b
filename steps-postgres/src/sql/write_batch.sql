-- One batch in one transaction: an array for each column of the requests. See migrations/2_functions.sql.
SELECT request, id, number, name, is_locked FROM write_batch($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
