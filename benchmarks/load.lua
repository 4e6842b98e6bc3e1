-- What wrk asks for, and what it prints at the end: one line of JSON.
--
--   wrk ... -s load.lua URL -- TEMPLATE REQUESTS DEVICES SEED FIRST
--
-- REQUESTS requests are made before the first is sent, so that Lua is not what is measured. SEED 0:
-- request number n comes from device number n. Else each comes from any of DEVICES devices. TEMPLATE
-- is a request, in which @: stands for the MAC and @ for the MAC without its colons. The first one
-- sent is that after FIRST.

local requests = {}
local last = 0

local function request_of(template, device)
  local bare = string.format("02%010x", device)
  local mac = bare:gsub("(%x%x)", "%1:"):sub(1, 17)
  return (template:gsub("@:", mac):gsub("@", bare))
end

function init(args)
  local template, count, devices, seed = args[1], tonumber(args[2]), tonumber(args[3]), tonumber(args[4])
  math.randomseed(seed)
  last = tonumber(args[5])
  for number = 1, count do
    local device = seed == 0 and number or math.random(0, devices - 1)
    requests[number] = request_of(template, device)
  end
end

function request()
  last = last % #requests + 1
  return requests[last]
end

function done(summary, latency)
  local errors = summary.errors
  print(string.format(
    '{"requests":%.0f,"bytes":%.0f,"seconds":%.6f,"connect":%.0f,"read":%.0f,"write":%.0f,' ..
    '"status":%.0f,"timeout":%.0f,"p50_ms":%.3f,"p99_ms":%.3f}',
    summary.requests, summary.bytes, summary.duration / 1e6, errors.connect, errors.read,
    errors.write, errors.status, errors.timeout, latency:percentile(50) / 1000,
    latency:percentile(99) / 1000))
end
