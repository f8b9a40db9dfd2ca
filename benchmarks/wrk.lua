-- One POST, again and again; what came of it as one line of JSON. BODY is the path of the body, TYPE its media type.
wrk.method = "POST"
wrk.headers["Content-Type"] = os.getenv("TYPE")
local file = io.open(os.getenv("BODY"), "rb")
wrk.body = file:read("*a")
file:close()

function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '\n{"requests": %d, "seconds": %.6f, "failed": %d, "p50": %.3f, "p90": %.3f, "p99": %.3f, "p999": %.3f}\n',
    summary.requests, summary.duration / 1e6, e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50), latency:percentile(90), latency:percentile(99), latency:percentile(99.9)))
end
