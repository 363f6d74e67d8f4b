-- add_step: its number, or its number and name where that is not the requested one; nothing when the build is full.
-- ARGV: the requested name; a byte for each number of digits that a suffix may have, the length of the name cut for
-- it; what stands between number and name in the record of a new step (L1); the state string; the key, if any.
local requested, cuts, key = ARGV[1], ARGV[2], ARGV[5]
local MOST_STEPS = 1048576

local known = redis.call('HMGET', KEYS[2], '#', 'n' .. requested, 'k' .. (key or ''))

-- I5: a key that the build knows gets the answer that it got. Without one nothing is found: no key is empty.
if known[3] then
    local record = read(known[3]) or corrupt('a key without its step')
    return { stored_number(known[3]), string.sub(record, NAME, NAME - 1 + string.byte(record, NAME_LENGTH)) }
end

-- I2, I4
local number = stored_number(known[1] or '0')
if number >= MOST_STEPS then
    return false
end

-- N3: the cut name and _k, for the smallest free k. As steps_core::naming, with a hint for each prefix and number of
-- digits, so that no search begins at 1 again (N5).
local name, more = requested, key and { 'k' .. key, number } or {}
if known[2] then
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
    until name ~= requested
end

local record = 's' .. struct.pack('>I4', number) .. ARGV[3] .. string.char(#name) .. name .. ARGV[4]
if redis.call('HEXISTS', KEYS[1], number) == 1 then
    corrupt('a step past the last')
end
redis.call('HSET', KEYS[1], number, record)
redis.call('HSET', KEYS[2], '#', number + 1, 'n' .. name, number, unpack(more))
if name == requested then
    return number
end
return { number, name }
