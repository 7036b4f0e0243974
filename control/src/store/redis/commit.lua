-- Commits a transaction: all of its changes or none, and once, however often it is asked for.
-- KEYS: meta, this commit's own, changed, control, obstacles, the service's volatile hash, listings.
-- ARGV: instance, version that was read, seconds to remember, holder, channel, hint, service;
--       then per change: hash, order, key, 1 to put, value.
local instance, version = unpack(redis.call('HMGET', KEYS[1], 'instance', 'version'))
if instance ~= ARGV[1] then
  return {'emptied', 0}
end
local done = redis.call('GET', KEYS[2])
if done then
  return {'done', tonumber(done)}
end
local holder = redis.call('GET', KEYS[4])
if holder and holder ~= ARGV[4] then
  return {'fenced', 0}
end
version = tonumber(version)
if version ~= tonumber(ARGV[2]) then
  return {'overtaken', version}
end
version = version + 1
local service = ARGV[7]

-- A service whose listing is gone is gone.
local function forget(id)
  redis.call('ZREM', KEYS[3], id)
  redis.call('HDEL', KEYS[5], id)
  if id ~= service then
    return
  end
  -- Replicas outlive their service until they are removed; without any, nothing else is left.
  for _, field in ipairs(redis.call('HKEYS', KEYS[6])) do
    if string.sub(field, 1, 2) == 'r:' then
      return
    end
  end
  redis.call('DEL', KEYS[6])
end

for i = 8, #ARGV, 5 do
  local hash, order, key = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  if ARGV[i + 3] == '1' then
    redis.call('HSET', hash, key, ARGV[i + 4])
    if order ~= '' then
      redis.call('ZADD', order, 0, key)
    end
    if hash == KEYS[7] then
      redis.call('ZADD', KEYS[3], version, key)
    end
  else
    redis.call('HDEL', hash, key)
    if order ~= '' then
      redis.call('ZREM', order, key)
    end
    if hash == KEYS[7] then
      forget(key)
    end
  end
end
redis.call('HSET', KEYS[1], 'version', version)
redis.call('SET', KEYS[2], version, 'EX', ARGV[3])
if service ~= '' then
  redis.call('PUBLISH', ARGV[5], ARGV[6])
end
return {'done', version}
