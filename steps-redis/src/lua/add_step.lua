-- add_step: its number, or its number and name where that is not the requested one; nothing when the build is full.
-- ARGV: the requested name; a byte for each number of digits that a suffix may have, the length of the name cut for
-- it; what stands between number and name in the record of a new step (L1); the state string; the key, if any.
local requested, cuts, blank, state, key = unpack(ARGV)
local MOST_STEPS = 1048576

local count, taken, known = unpack(redis.call('HMGET', KEYS[2], '#', 'n' .. requested, 'k' .. (key or '')))

-- I5: a key that the build knows gets the answer that it got. Without one nothing is found: no key is empty.
if known then
    return { number(known), name(read(known) or corrupt('a key without its step')) }
end

-- I2, I4
count = number(count or '0')
if count >= MOST_STEPS then
    return false
end

-- N3: the cut name and _k, for the smallest free k. As steps_core::naming, with a hint for each prefix and number of
-- digits, so that no search begins at 1 again (N5).
local free, hints = requested, {}
local function search(digits)
    local prefix = string.sub(requested, 1, string.byte(cuts, digits))
    local hint = 'h' .. digits .. prefix
    local k, past = number(redis.call('HGET', KEYS[2], hint) or '1' .. string.rep('0', digits - 1)), 10 ^ digits
    local start = k
    while k < past and redis.call('HEXISTS', KEYS[2], 'n' .. prefix .. '_' .. k) == 1 do
        k = k + 1
    end
    if k < past then
        free = prefix .. '_' .. k
        k = k + 1
    end
    if k ~= start then
        hints[#hints + 1] = hint
        hints[#hints + 1] = k
    end
    return free ~= requested
end
if taken then
    local digits = 1
    while not search(digits) do
        digits = digits + 1
        if digits > #cuts then
            corrupt('the hints for ' .. requested) -- A build has fewer steps than there are suffixes.
        end
    end
end

local record = 's' .. struct.pack('>I4', count) .. blank .. string.char(#free) .. free .. state
if redis.call('HSETNX', KEYS[1], count, record) == 0 then
    corrupt('a step past the last')
end
if key then
    hints[#hints + 1] = 'k' .. key
    hints[#hints + 1] = count
end
redis.call('HSET', KEYS[2], '#', count + 1, 'n' .. free, count, unpack(hints))
return taken and { count, free } or count
