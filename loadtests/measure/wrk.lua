-- A GET or, with the argument POST, a POST of 1 KB of JSON; writes what wrk measured as one line of JSON.
function init(args)
  if args[1] == "POST" then
    wrk.method = "POST"
    wrk.body = '{"order": 7, "text": "' .. string.rep("x", 1000) .. '"}'
    wrk.headers["Content-Type"] = "application/json"
  end
end

done = function(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '{"requests": %d, "seconds": %.6f, "not_2xx": %d, "broken": %d, "p50_us": %.0f, "p90_us": %.0f, "p99_us": %.0f}\n',
    summary.requests, summary.duration / 1e6, errors.status,
    errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50), latency:percentile(90), latency:percentile(99)))
end
