-- start_step: 1, or nothing where there is no such step (L6). ARGV: its number, the time, 1 if it had its locks.
local step, time, locks_acquired = unpack(ARGV)
local record = read(step)
if not record then
    return false
end
record = replace(step, record, STARTED_AT, time) -- L2
if locks_acquired == '1' then
    record = replace(step, record, LOCKS_ACQUIRED_AT, time)
end
call('HSET', steps, step, record)
return 1
