-- get_step: returns the records of a step and of its urls in order, or nil if there is no such step (R1).
-- ARGV: the step's number.
local step = ARGV[1]
local record = read(step)
if not record then
    return false
end
local records = { record }
local count = struct.unpack('>I4', record, #step + URLS)
if count > 0 and count > call('HLEN', steps) then
    error({ err = 'CORRUPT the urls of step ' .. step })
end
-- In chunks, because unpack() is limited by the size of Lua's stack.
for first = 0, count - 1, 1000 do
    local fields = {}
    for position = first, math.min(first + 999, count - 1) do
        fields[#fields + 1] = step .. ':' .. position
    end
    for _, url in ipairs(call('HMGET', steps, unpack(fields))) do
        records[#records + 1] = url
    end
end
return records
