-- add_url: returns 1, or nil if there is no such step (L6).
-- ARGV: the step's number; the digest of name and url; the url's record from its name length on; any value if writes
-- are replicated.
local step, digest, url, replicated = unpack(ARGV)
local record = read(step)
if not record then
    return false
end
local pair = 'd' .. step .. ':' .. digest
if call('HEXISTS', index, pair) == 1 then
    if replicated then
        call('HSET', index, pair, '') -- D1: see prelude.lua
    end
    return 1 -- U2
end
local position = struct.unpack('>I4', record, #step + URLS)
local field = step .. ':' .. position
if call('HEXISTS', steps, field) == 1 then
    error({ err = 'CORRUPT a url past the last position of step ' .. step })
end
call('HSET', steps, field, step .. 'u' .. struct.pack('>I4', position) .. url) -- U1
call('HSET', steps, step, replace(step, record, URLS, struct.pack('>I4', position + 1)))
call('HSET', index, pair, '')
return 1
