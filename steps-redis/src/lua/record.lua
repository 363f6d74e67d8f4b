-- What all scripts share, in front of each.
--
-- A script is not taken back when it fails half-way. So each reads and checks all that it needs before it first
-- writes (D2), and its first write goes to a key that it has read, or is one that the server refuses as a whole. All
-- writes are HSET: a user who may do the first may do the others.
--
-- D1: where replicas are waited for, each writes that does not answer with nothing, what is there already if need be: a
-- server waits for what its client wrote last, and somebody else's write may not have reached the replicas yet.
--
-- Numbers that are stored are passed on as the text that they are: to make text of a number costs more than most else
-- here. So does a function that is made and not called, or a table: what not all need is in files of its own.

-- The places of a record, behind the number that it begins with. Up to the name all have fixed lengths, so that a
-- change puts bytes in the place of others and reads none: numbers in Lua have 53 bits, and times and ids more.
local URLS, STARTED_AT, LOCKS_ACQUIRED_AT, COMPLETE_AT, NAME_LENGTH, NAME = 2, 6, 14, 22, 39, 40

-- The steps of a build and their urls, and its index: docs/redis.md has both.
local steps, index, call = KEYS[1], KEYS[2], redis.call

