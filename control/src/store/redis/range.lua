-- A part of an ordered table, and at which version of the whole it was read.
-- KEYS: meta, the table's hash, its order. ARGV: first key, last key, 1 for backwards, offset, limit.
local stamp = redis.call('HMGET', KEYS[1], 'instance', 'version')
local found
if ARGV[3] == '1' then
  found = redis.call('ZREVRANGEBYLEX', KEYS[3], ARGV[2], ARGV[1], 'LIMIT', ARGV[4], ARGV[5])
else
  found = redis.call('ZRANGEBYLEX', KEYS[3], ARGV[1], ARGV[2], 'LIMIT', ARGV[4], ARGV[5])
end
local values = {}
if #found > 0 then
  values = redis.call('HMGET', KEYS[2], unpack(found))
end
return {stamp, found, values}
