-- The record of a step with these bytes at a place.
local function replace(step, record, place, bytes)
    place = #step + place
    return string.sub(record, 1, place - 1) .. bytes .. string.sub(record, place + #bytes)
end

