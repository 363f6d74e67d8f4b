-- get_step: the record of a step, then those of its urls in order; nothing where there is no such step (R1).
-- ARGV: its number.
local step = ARGV[1]
local record = read(step)
if not record then
    return false
end
local answer, count = { record }, (struct.unpack('>I4', record, #step + URLS))
if count > 0 and count > call('HLEN', steps) then
    error({ err = 'CORRUPT the urls of step ' .. step })
end
-- Lua's stack has no room for any number of arguments.
for first = 0, count - 1, 1000 do
    local places = {}
    for place = first, math.min(first + 999, count - 1) do
        places[#places + 1] = step .. ':' .. place
    end
    for _, url in ipairs(call('HMGET', steps, unpack(places))) do
        answer[#answer + 1] = url
    end
end
return answer
