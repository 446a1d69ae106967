local meta, gen, keep, ttl = KEYS[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
if (redis.call('HGET', meta, 'version') or '0') ~= ARGV[1] then return 0 end
local current = redis.call('HGET', meta, 'generation')
local written = 'size:' .. gen .. ':n'
-- Until its watermark is there, a generation is known by its writes: the last may have been lost.
if gen ~= current and (redis.call('SISMEMBER', meta .. ':generations', gen) == 0
    or (redis.call('HGET', meta, written) or '0') ~= ARGV[7]) then return 0 end
local base, time = meta .. ':' .. gen .. ':', redis.call('TIME')
local now, kinds = time[1] * 1000 + math.floor(time[2] / 1000), {'a', 's', 'l', 'p'}
-- Before anything is written: what was evicted would be taken for complete again.
for _, kind in ipairs(kinds) do
  local size = tonumber(redis.call('HGET', meta, 'size:' .. gen .. ':' .. kind)) or 0
  if redis.call('ZCARD', base .. 'index:' .. kind) < size then return 2 end
end
for i = 8, #ARGV, 3 do
  local last = redis.call('ZSCORE', base .. 'index:' .. string.sub(ARGV[i], 1, 1),
                          string.sub(ARGV[i], 3))
  if last and (ttl == 0 or last + ttl > now) and redis.call('EXISTS', base .. ARGV[i]) == 0 then
    return 2
  end
end
for i = 8, #ARGV, 3 do
  local key, kind = base .. ARGV[i], string.sub(ARGV[i], 1, 1)
  local lines, from, entries = ARGV[i + 2], 1, {}
  while from <= #lines do
    local to = string.find(lines, '\n', from, true) or #lines + 1
    entries[#entries + 1] = string.sub(lines, from, to - 1)
    from = to + 1
    if #entries == 1000 or from > #lines then
      redis.call('LPUSH', key, unpack(entries))
      entries = {}
    end
  end
  redis.call('LTRIM', key, 0, keep - 1)
  local index, name = base .. 'index:' .. kind, string.sub(ARGV[i], 3)
  redis.call('ZADD', index, 'GT', ARGV[i + 1], name)
  if ttl > 0 then
    local last = tonumber(redis.call('ZSCORE', index, name))
    redis.call('PEXPIREAT', key, string.format('%.0f', last + ttl))
  end
end
if ttl > 0 then
  for _, kind in ipairs(kinds) do
    redis.call('ZREMRANGEBYSCORE', base .. 'index:' .. kind, '-inf',
               string.format('%.0f', now - ttl))
  end
end
for _, kind in ipairs(kinds) do
  local size = redis.call('ZCARD', base .. 'index:' .. kind)
  redis.call('HSET', meta, 'size:' .. gen .. ':' .. kind, size)
end
if ARGV[5] ~= '' then
  redis.call('HSET', meta, 'generation', gen, 'version', ARGV[6], 'watermark', ARGV[5],
             'keep', keep, 'ttl', ARGV[4])
else
  redis.call('HINCRBY', meta, written, 1)
end
return 1
