-- Builds a unique webhook per request, and prints the result of the load as one line of JSON.
-- Arguments: path, API key, prefix of the ids, template of the body, number of sessions.

local path, key, prefix, template, sessions, head
local number = 0

function init(args)
  path, key, prefix, template, sessions = args[1], args[2], args[3], args[4], tonumber(args[5])
  head = "POST " .. path .. " HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nX-API-Key: " .. key
    .. "\r\nContent-Length: "
end

function request()
  local n = number
  number = n + 1
  local body = string.format(template, n % sessions, prefix, n, prefix, n, n)
  return head .. #body .. "\r\n\r\n" .. body
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '{"requests":%d,"seconds":%.6f,"refused":%d,"broken":%d,"p50_ms":%.3f,"p99_ms":%.3f}\n',
    summary.requests, summary.duration / 1e6, errors.status,
    errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
