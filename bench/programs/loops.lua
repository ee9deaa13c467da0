-- SPDX-License-Identifier: MIT
-- Tables, closures, text, floating point: lua5.4 loops.lua TIMES
local function queens(n, row, cols, left, right)
    if row == n then return 1 end
    local found, free = 0, ~(cols | left | right) & ((1 << n) - 1)
    while free ~= 0 do
        local bit = free & -free
        free = free ~ bit
        found = found + queens(n, row + 1, cols | bit, (left | bit) << 1, (right | bit) >> 1)
    end
    return found
end

local sum = 0
local function mix(v) sum = (sum * 31 + v) & 0xffffffffffff end

for i = 1, tonumber(arg[1]) do
    local t = {}
    for k = 1, 2000 do t[k] = (k * 7919 + i) % 1013 end
    table.sort(t)
    mix(t[100])
    mix(queens(7, 0, 0, 0, 0))
    local parts, count = {}, {}
    for k = 1, 2000 do parts[k] = "w" .. k % 101 end
    for w in table.concat(parts, " "):gmatch("w(%d+)") do count[w] = (count[w] or 0) + 1 end
    mix(count["7"])
    local x, v = 1.0, 0.0
    for _ = 1, 5000 do v = v - x * 0.01; x = x + v * 0.01 end
    mix(math.floor(x * 1e12))
end
print(sum)
