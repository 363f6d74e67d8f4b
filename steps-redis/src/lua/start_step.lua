-- start_step: returns 1, or nil if there is no such step (L6).
-- ARGV: the step's number; the time; 1 if the step has its locks.
local step, time, has_locks = unpack(ARGV)
local record = read(step)
if not record then
    return false
end
record = replace(step, record, STARTED_AT, time) -- L2
if has_locks == '1' then
    record = replace(step, record, LOCKS_ACQUIRED_AT, time)
end
call('HSET', steps, step, record)
return 1
