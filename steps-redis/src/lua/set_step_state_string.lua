-- set_step_state_string: 1, or nothing where there is no such step (L6). ARGV: its number, the state string.
local step, state = unpack(ARGV)
local record = read(step)
if not record then
    return false
end
local name = #step + NAME
local before = string.sub(record, 1, name - 1 + string.byte(record, name - 1))
call('HSET', steps, step, before .. state) -- L3
return 1
