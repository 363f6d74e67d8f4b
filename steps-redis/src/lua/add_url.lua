-- add_url: 1, or nothing where there is no such step (L6). ARGV: its number, the digest of the pair, and of the record
-- of the url what follows its place; anything where replicas are waited for.
local step, digest, url, waits = unpack(ARGV)
local record = read(step)
if not record then
    return false
end
local pair = 'd' .. step .. ':' .. digest
if call('HEXISTS', index, pair) == 1 then
    if waits then
        call('HSET', index, pair, '') -- D1: see record.lua
    end
    return 1 -- U2
end
local place = struct.unpack('>I4', record, #step + URLS)
local field = step .. ':' .. place
if call('HEXISTS', steps, field) == 1 then
    error({ err = 'CORRUPT a url past the last of step ' .. step })
end
call('HSET', steps, field, step .. 'u' .. struct.pack('>I4', place) .. url) -- U1
call('HSET', steps, step, replace(step, record, URLS, struct.pack('>I4', place + 1)))
call('HSET', index, pair, '')
return 1
