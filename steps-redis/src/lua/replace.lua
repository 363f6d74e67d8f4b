-- Returns the record of a step with its bytes at an offset replaced.
local function replace(step, record, offset, bytes)
    offset = #step + offset
    return string.sub(record, 1, offset - 1) .. bytes .. string.sub(record, offset + #bytes)
end

