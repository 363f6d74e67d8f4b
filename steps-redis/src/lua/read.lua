-- Returns the record of a step, or false if there is none (L6).
local function read(step)
    local record = call('HGET', steps, step)
    local name = #step + NAME
    if record and (string.sub(record, 1, #step + 1) ~= step .. 's' or #record < name - 1
        or #record < name - 1 + string.byte(record, name - 1)) then
        error({ err = 'CORRUPT the record of step ' .. step })
    end
    return record
end

