-- The volatile verbs about one service: each is one step, and tells watchers when it changed something.
-- KEYS: meta, listings, the service's volatile hash, obstacles, services with replicas.
-- ARGV: instance, channel, hint, service, verb, and what the verb takes.
-- The hash has `r:<replica>` (its place and its deployment), `w:<replica>` (the wish), `s:<replica>`
-- (what the edge saw), `demand`, and `places`, which counts the replicas that there ever were.
if redis.call('HGET', KEYS[1], 'instance') ~= ARGV[1] then
  return 'emptied'
end
local service, verb, replica = ARGV[4], ARGV[5], ARGV[6]
local changed = false

local function set(hash, field, value)
  if redis.call('HGET', hash, field) ~= value then
    redis.call('HSET', hash, field, value)
    changed = true
  end
end

local function unset(hash, field)
  if redis.call('HDEL', hash, field) == 1 then
    changed = true
  end
end

local function has(id)
  return redis.call('HEXISTS', KEYS[3], 'r:' .. id) == 1
end

local function listed()
  return redis.call('HEXISTS', KEYS[2], service) == 1
end

-- A hash of a service that is not kept has replicas, or it is not there.
local function known()
  return listed() or redis.call('EXISTS', KEYS[3]) == 1
end

if verb == 'put' then
  local deployment, wish, seen = ARGV[7], ARGV[8], ARGV[9]
  local before = redis.call('HGET', KEYS[3], 'r:' .. replica)
  local place = before and string.match(before, '^%d+')
  if not place then
    place = redis.call('HINCRBY', KEYS[3], 'places', 1)
  end
  redis.call('SADD', KEYS[5], service)
  set(KEYS[3], 'r:' .. replica, place .. ' ' .. deployment)
  set(KEYS[3], 'w:' .. replica, wish)
  if seen == '' then
    unset(KEYS[3], 's:' .. replica)
  else
    set(KEYS[3], 's:' .. replica, seen)
  end
elseif verb == 'wish' then
  if has(replica) then
    set(KEYS[3], 'w:' .. replica, ARGV[7])
  end
elseif verb == 'remove' then
  unset(KEYS[3], 'r:' .. replica)
  unset(KEYS[3], 'w:' .. replica)
  unset(KEYS[3], 's:' .. replica)
  local left = false
  for _, field in ipairs(redis.call('HKEYS', KEYS[3])) do
    left = left or string.sub(field, 1, 2) == 'r:'
  end
  if not left then
    redis.call('SREM', KEYS[5], service)
    if not listed() then
      redis.call('DEL', KEYS[3])
      redis.call('HDEL', KEYS[4], service)
    end
  end
elseif verb == 'demand' then
  if replica ~= '' and has(replica) then
    set(KEYS[3], 's:' .. replica, ARGV[8])
  end
  if known() then
    -- A demand that was never told is none.
    if ARGV[7] ~= '0' or redis.call('HEXISTS', KEYS[3], 'demand') == 1 then
      set(KEYS[3], 'demand', ARGV[7])
    end
  end
elseif verb == 'obstacle' then
  if known() then
    if ARGV[7] == '' then
      unset(KEYS[4], service)
    else
      set(KEYS[4], service, ARGV[7])
    end
  end
end
if changed then
  redis.call('PUBLISH', ARGV[2], ARGV[3])
  return 'changed'
end
return 'same'
