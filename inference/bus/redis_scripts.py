"""What Redis does in one step for the bus: each script all or nothing, as nobody else is served meanwhile."""

from __future__ import annotations

# KEYS: stream, ids, counter, cursors. ARGV: journal or '', cursor believed or '', cursor afterwards, then pairs of
# event id and event. Answers the number of new ones and '', or -1 and the cursor that is there.
PUBLISH = """
if ARGV[1] ~= '' then
  local found = redis.call('HGET', KEYS[4], ARGV[1]) or ''
  if found ~= ARGV[2] then return {-1, found} end
end
local now = redis.call('TIME')
local at = now[1] .. string.format('%03d', math.floor(now[2] / 1000))
local new = 0
for i = 4, #ARGV, 2 do
  if redis.call('HEXISTS', KEYS[2], ARGV[i]) == 0 then
    local offset = redis.call('INCR', KEYS[3])
    redis.call('XADD', KEYS[1], string.format('%d-0', offset), 'event', ARGV[i + 1], 'at', at)
    redis.call('HSET', KEYS[2], ARGV[i], offset)
    new = new + 1
  end
end
if ARGV[1] ~= '' then redis.call('HSET', KEYS[4], ARGV[1], ARGV[3]) end
return {new, ''}
"""

# KEYS: stream or retries, dead letters, reasons, retries. ARGV: group, id, event id, dead letter, its handle.
BURY = """
if redis.call('XACK', KEYS[1], ARGV[1], ARGV[2]) == 0 then return 0 end
redis.call('HSET', KEYS[2], ARGV[3], ARGV[4])
redis.call('HDEL', KEYS[3], ARGV[5])
if KEYS[1] == KEYS[4] then redis.call('XDEL', KEYS[1], ARGV[2]) end
return 1
"""

# KEYS: dead letters, retries, ids that are waiting. ARGV: event ids and events by turns, offset after each.
REQUEUE = """
local done = 0
for i = 1, #ARGV, 3 do
  if redis.call('HDEL', KEYS[1], ARGV[i]) == 1 then
    redis.call('XADD', KEYS[2], '*', 'event', ARGV[i + 1], 'offset', ARGV[i + 2])
    done = done + 1
  end
end
return done
"""

# KEYS: stream or retries, counts, reasons, retries. ARGV: group, id, handle.
ACKNOWLEDGE = """
local done = redis.call('XACK', KEYS[1], ARGV[1], ARGV[2])
if done == 0 then return 0 end
redis.call('HINCRBY', KEYS[2], 'acknowledged', done)
redis.call('HDEL', KEYS[3], ARGV[3])
if KEYS[1] == KEYS[4] then redis.call('XDEL', KEYS[1], ARGV[2]) end
return done
"""
