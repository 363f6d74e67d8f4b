-- set_step_locks_acquired_at: returns 1, or nil if there is no such step (L6).
-- ARGV: the step's number; the time.
local step, time = unpack(ARGV)
local record = read(step)
if not record then
    return false
end
call('HSET', steps, step, replace(step, record, LOCKS_ACQUIRED_AT, time)) -- L3
return 1
