-- add_step: returns the step's number, or its number and name if the name got a suffix, or nil if the build is full.
-- ARGV:
-- 1. the index field of the requested name;
-- 2. the record of a new step with that name (L1), without its number;
-- 3. one byte for each possible number of suffix digits, the length of the name's prefix in front of such a suffix.
--    The argument is empty if no suffix shortens the name, and missing if the add has no key either;
-- 4. the index field of the idempotency key, if there is one: then idempotency.lua precedes this file;
-- 5. any value if writes are replicated.
local field, record, prefix_lengths, key = unpack(ARGV)
local MAX_STEPS = 1048576
local MAX_DIGITS = 7 -- Of a step number, and of a suffix.

-- Parses a stored number. The scripts store no sign, no leading zero and no more than MAX_DIGITS digits.
local function stored_number(text)
    local number = tonumber(text)
    local is_valid = number and number >= 0 and #text <= MAX_DIGITS and string.format('%d', number) == text
    return is_valid and number or error({ err = 'CORRUPT a number of the index' })
end

-- I2, I4
local step = call('HGET', index, '#') or '0'
local number = stored_number(step)
if number >= MAX_STEPS then
    return false
end

-- N3: a taken name gets the suffix _k with the smallest free k, as in steps_core::naming. The index has a hint for
-- each prefix and number of digits, so a search does not begin at 1 again (N5).
local requested, name
local more = key and { key, step } -- Further fields and values for the index.
if call('HEXISTS', index, field) == 1 then
    requested = string.sub(field, 2)
    more = more or {}
    local digits = 0
    repeat
        digits = digits + 1
        if digits > MAX_DIGITS then
            -- There are more suffixes than steps in a build, so one of them is free.
            error({ err = 'CORRUPT the hints for ' .. requested })
        end
        local prefix = string.sub(requested, 1, prefix_lengths and string.byte(prefix_lengths, digits) or -1)
        local hint = 'h' .. digits .. prefix
        local past = 10 ^ digits
        local start = call('HGET', index, hint)
        start = start and stored_number(start) or past / 10
        if start < past / 10 or start > past then
            error({ err = 'CORRUPT the hint for ' .. prefix })
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
    error({ err = 'CORRUPT a step past the last number' })
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
