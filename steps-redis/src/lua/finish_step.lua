-- finish_step: 1, or nothing where there is no such step (L6). ARGV: its number; the time, results and hidden, as they
-- follow each other in the record.
local step, finish = unpack(ARGV)
local record = read(step)
if not record then
    return false
end
call('HSET', steps, step, replace(step, record, COMPLETE_AT, finish)) -- L4
return 1
