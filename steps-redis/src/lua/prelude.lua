-- The prelude, which stands in front of each script.
--
-- Redis does not roll back a script that fails half-way. So a script reads and checks all its data before its first
-- write (D2). The first write goes to a key that the script has read. If the server refuses that write, nothing was
-- applied. All writes are HSET, so a user with permission for the first write has it for the others.
--
-- D1: with `replicas=N`, every script that returns a result must also write, even an unchanged value. WAIT covers only
-- this connection's own writes; another client's may not be replicated yet.
--
-- Scripts pass stored numbers on as text, because formatting a number costs more than most other steps of a script.
-- Creating a function or a table costs much too, so functions that only some scripts need are in files of their own.

-- Offsets in the record of a step, counted from the end of its number. All fields before the name have a fixed length,
-- so an update overwrites bytes without decoding them. Numbers in Lua have 53 bits, too few for a time or an id.
local URLS, STARTED_AT, LOCKS_ACQUIRED_AT, COMPLETE_AT, NAME_LENGTH, NAME = 2, 6, 14, 22, 39, 40

-- The two hashes of a build, see docs/redis.md.
local steps, index, call = KEYS[1], KEYS[2], redis.call

