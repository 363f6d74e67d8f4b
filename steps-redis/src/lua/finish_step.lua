-- finish_step: returns 1, or nil if there is no such step (L6).
-- ARGV: the step's number; complete_at, results and hidden, encoded as in the record.
local step, finish = unpack(ARGV)
local record = read(step)
if not record then
    return false
end
call('HSET', steps, step, replace(step, record, COMPLETE_AT, finish)) -- L4
return 1
