-- In front of add_step.lua where the add has a key: one that the build knows gets the answer that it got (I5).
local key, waits = ARGV[4], ARGV[5]
local known = call('HGET', index, key)
if known then
    local record = read(known) or error({ err = 'CORRUPT a key without its step' })
    local name = #known + NAME
    if waits then
        call('HSET', index, key, known) -- D1: see record.lua
    end
    return { tonumber(known), string.sub(record, name, name - 1 + string.byte(record, name - 1)) }
end

