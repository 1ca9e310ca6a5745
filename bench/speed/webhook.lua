-- Builds a unique webhook per request, and prints the result of the load as one line of JSON.
-- Arguments: path, API key, prefix of the ids, template of the body, number of sessions, and webhooks per second (0: as
-- many as are answered).

local ffi = require("ffi")
ffi.cdef("struct time { long seconds, microseconds; }; int gettimeofday(struct time *, void *);")

local thread
local path, key, prefix, template, sessions, per_second, head
local number, due_at = 0, 0
sent_at = {}

local time = ffi.new("struct time")

local function now()
  ffi.C.gettimeofday(time, nil)
  return tonumber(time.seconds) + tonumber(time.microseconds) / 1e6
end

-- Returns the milliseconds until the next request is due. Not defined without a rate: wrk would wait for its timer.
local function wait()
  due_at = math.max(due_at, now() - 1) + 1 / per_second
  return math.max(0, math.ceil((due_at - now()) * 1e3))
end

function setup(made)
  thread = made
end

function init(args)
  path, key, prefix, template, sessions, per_second =
    args[1], args[2], args[3], args[4], tonumber(args[5]), tonumber(args[6])
  head = "POST " .. path .. " HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nX-API-Key: " .. key
    .. "\r\nContent-Length: "
  if per_second > 0 then
    due_at, delay = now(), wait
  end
end

function request()
  local n = number
  number = n + 1
  if per_second > 0 then
    sent_at[number] = now()
  end
  local body = string.format(template, n % sessions, prefix, n, prefix, n, n)
  return head .. #body .. "\r\n\r\n" .. body
end

function done(summary, latency, requests)
  local errors, times = summary.errors, {}
  for index, at in ipairs(thread:get("sent_at")) do
    times[index] = string.format("%.6f", at)
  end
  io.write(string.format(
    '{"requests":%d,"seconds":%.6f,"refused":%d,"broken":%d,"p50_ms":%.3f,"p99_ms":%.3f,"sent_at":[%s]}\n',
    summary.requests, summary.duration / 1e6, errors.status,
    errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, table.concat(times, ",")))
end
