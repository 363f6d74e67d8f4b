-- What the scripts share, in front of each. KEYS[1] has the steps of a build and their urls, KEYS[2] its index;
-- docs/redis.md has both.
--
-- A script is not taken back when it fails half-way. So each reads and checks all that it needs before it first
-- writes (D2), and its first write goes to a key that it has read, or is one that the server refuses as a whole. All
-- writes are HSET: a user who may do the first may do the others.
--
-- D1: where replicas are waited for, each writes that does not answer with nothing, what is there already if need be: a
-- server waits for what its client wrote last, and somebody else's write may not have reached the replicas yet.
--
-- Numbers that are stored are passed on as the text that they are: to make text of a number costs more than most else
-- here.

-- The places of a record, behind the number that it begins with. Up to the name all have fixed lengths, so that a
-- change puts bytes in the place of others and reads none: numbers in Lua have 53 bits, and times and ids more.
local URLS, STARTED_AT, LOCKS_ACQUIRED_AT, COMPLETE_AT, NAME_LENGTH, NAME = 2, 6, 14, 22, 39, 40

-- What is stored is not what the scripts store.
local function corrupt(what)
    error({ err = 'CORRUPT ' .. what })
end

-- A number that the scripts have stored: none has a sign or a zero in front, or more digits than that of the steps.
local function stored_number(text)
    local is_stored = #text <= 7 and (text == '0' or string.find(text, '^[1-9]%d*$'))
    return is_stored and tonumber(text) or corrupt('a number of the index')
end

-- The record of a step; nothing where there is none (L6).
local function read(step)
    local record = redis.call('HGET', KEYS[1], step)
    local name = #step + NAME
    if record and (string.sub(record, 1, #step + 1) ~= step .. 's' or #record < name - 1
        or #record < name - 1 + string.byte(record, name - 1)) then
        corrupt('the record of step ' .. step)
    end
    return record
end

-- The record of a step with these bytes at a place.
local function replace(step, record, place, bytes)
    place = #step + place
    return string.sub(record, 1, place - 1) .. bytes .. string.sub(record, place + #bytes)
end

