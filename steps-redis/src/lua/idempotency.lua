-- Precedes add_step.lua for an add with an idempotency key. For a known key it returns the step of the first add (I5).
local key, replicated = ARGV[4], ARGV[5]
local known = call('HGET', index, key)
if known then
    local record = read(known) or error({ err = 'CORRUPT a key without its step' })
    local name = #known + NAME
    if replicated then
        call('HSET', index, key, known) -- D1: see prelude.lua
    end
    return { tonumber(known), string.sub(record, name, name - 1 + string.byte(record, name - 1)) }
end

