-- set_step_state_string: returns 1, or nil if there is no such step (L6).
-- ARGV: the step's number; the state string.
local step, state = unpack(ARGV)
local record = read(step)
if not record then
    return false
end
local name = #step + NAME
local up_to_name = string.sub(record, 1, name - 1 + string.byte(record, name - 1))
call('HSET', steps, step, up_to_name .. state) -- L3
return 1
