-- add_step: its number, or its number and name where that is not the requested one; nothing when the build is full.
-- ARGV: the field of the requested name; a byte for each number of digits that a suffix may have, the length of the
-- name cut for it; the record of a new step with that name (L1), without the number in front; the field of the key, if
-- there is one, and with it anything where replicas are waited for.
local field, cuts, record, key, waits = unpack(ARGV)
local MOST_STEPS = 1048576

-- To look for one field more costs what there are fields, so an add without a key does not (I5).
local known = key and redis.call('HMGET', KEYS[2], '#', field, key) or redis.call('HMGET', KEYS[2], '#', field)

-- I5: a key that the build knows gets the answer that it got.
if known[3] then
    local step = known[3]
    local number, known_record = stored_number(step), read(step) or corrupt('a key without its step')
    local name = #step + NAME
    if waits then
        redis.call('HSET', KEYS[2], key, step) -- D1: see record.lua
    end
    return { number, string.sub(known_record, name, name - 1 + string.byte(known_record, name - 1)) }
end

-- I2, I4
local step = known[1] or '0'
local number = stored_number(step)
if number >= MOST_STEPS then
    return false
end

-- N3: the cut name and _k, for the smallest free k. As steps_core::naming, with a hint for each prefix and number of
-- digits, so that no search begins at 1 again (N5).
local requested, name, more = nil, nil, key and { key, step } or {}
if known[2] then
    requested = string.sub(field, 2)
    local digits = 0
    repeat
        digits = digits + 1
        if digits > #cuts then
            corrupt('the hints for ' .. requested) -- A build has fewer steps than there are suffixes.
        end
        local prefix = string.sub(requested, 1, string.byte(cuts, digits))
        local hint = 'h' .. digits .. prefix
        local past = 10 ^ digits
        local start = redis.call('HGET', KEYS[2], hint)
        start = start and stored_number(start) or past / 10
        if start < past / 10 or start > past then
            corrupt('the hint of the suffixes of ' .. prefix)
        end
        local k = start
        while k < past and redis.call('HEXISTS', KEYS[2], 'n' .. prefix .. '_' .. k) == 1 do
            k = k + 1
        end
        if k < past then
            name = prefix .. '_' .. k
            k = k + 1
        end
        if k ~= start then
            more[#more + 1] = hint
            more[#more + 1] = k
        end
    until name
    field = 'n' .. name
    record = string.sub(record, 1, NAME_LENGTH - 1) .. string.char(#name) .. name
        .. string.sub(record, NAME + #requested)
end

if redis.call('HEXISTS', KEYS[1], step) == 1 then
    corrupt('a step past the last')
end
redis.call('HSET', KEYS[1], step, step .. record)
redis.call('HSET', KEYS[2], '#', number + 1, field, step, unpack(more))
if name then
    return { number, name }
end
return number
