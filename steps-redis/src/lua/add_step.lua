-- add_step: its number, or its number and name where that is not the requested one; nothing when the build is full.
-- ARGV: the field of the requested name; the record of a new step with that name (L1), without the number in front. If
-- the name is long or the add has a key, also a byte for each number of digits that a suffix may have, the length of
-- the name cut for it, or the empty text where none cuts it. If the add has a key, its field, and with it anything where
-- replicas are waited for: then known_key.lua stands before this.
local field, record, cuts, key = unpack(ARGV)
local MOST_STEPS, MOST_DIGITS = 1048576, 7 -- Of their numbers, and of suffixes.

-- A number that the scripts have stored: none has a sign or a zero in front, or more digits than that of the steps.
local function stored_number(text)
    local number = tonumber(text)
    local is_stored = number and number >= 0 and #text <= MOST_DIGITS and string.format('%d', number) == text
    return is_stored and number or error({ err = 'CORRUPT a number of the index' })
end

-- I2, I4
local step = call('HGET', index, '#') or '0'
local number = stored_number(step)
if number >= MOST_STEPS then
    return false
end

-- N3: the cut name and _k, for the smallest free k. As steps_core::naming, with a hint for each prefix and number of
-- digits, so that no search begins at 1 again (N5).
local requested, name, more = nil, nil, key and { key, step }
if call('HEXISTS', index, field) == 1 then
    requested, more = string.sub(field, 2), more or {}
    local digits = 0
    repeat
        digits = digits + 1
        if digits > MOST_DIGITS then
            -- A build has fewer steps than there are suffixes.
            error({ err = 'CORRUPT the hints for ' .. requested })
        end
        local prefix = string.sub(requested, 1, cuts and string.byte(cuts, digits) or -1)
        local hint = 'h' .. digits .. prefix
        local past = 10 ^ digits
        local start = call('HGET', index, hint)
        start = start and stored_number(start) or past / 10
        if start < past / 10 or start > past then
            error({ err = 'CORRUPT the hint of the suffixes of ' .. prefix })
        end
        local k = start
        while k < past and call('HEXISTS', index, 'n' .. prefix .. '_' .. k) == 1 do
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

if call('HEXISTS', steps, step) == 1 then
    error({ err = 'CORRUPT a step past the last' })
end
call('HSET', steps, step, step .. record)
local count = string.format('%d', number + 1)
if more then
    call('HSET', index, '#', count, field, step, unpack(more))
else
    call('HSET', index, '#', count, field, step)
end
if name then
    return { number, name }
end
return number
