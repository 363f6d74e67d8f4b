-- set_step_state_string: 1, or 0 where there is no such step (L6). ARGV: its number, the state string.
local step, state = unpack(ARGV)
local record = read(step)
if not record then
    return 0
end
redis.call('HSET', KEYS[1], step, string.sub(record, 1, NAME + #name(record) - 1) .. state) -- L3
return 1
