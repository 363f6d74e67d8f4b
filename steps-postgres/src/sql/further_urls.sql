-- U1: of the step $1, 512 urls from the position $2 on, but none from $3 on. Urls are only ever appended: with the number
-- that the step had in an earlier snapshot, these are its urls in that snapshot (R1, R2).
SELECT name, url FROM step_urls
WHERE step_id = $1 AND position >= $2 AND position < least($2 + 512, $3)
ORDER BY position
