-- Sell concert tickets over HTTP with LuaSocket and lua-cjson (Lua 5.1 to 5.4, LuaJIT).
--
--     lua tickets.lua [URL of a bucket]

local cjson = require("cjson")
local http = require("socket.http")
local ltn12 = require("ltn12")
local socket = require("socket")

local ATTEMPTS = 6 -- how often a request is sent, and how often a change is tried
local bucket = arg[1] or "http://127.0.0.1:8080/v1/buckets/default"
http.TIMEOUT = 10 -- seconds, to connect and for each read

local function encode(text)
  return (text:gsub("[^%w%-._~]", function(byte) return ("%%%02X"):format(byte:byte()) end))
end

-- The path of a document; a slash in its key is percent-encoded, too.
local function document(key)
  return "/documents/" .. encode(key)
end

local Problem = {
  __tostring = function(problem) return problem.code .. ": " .. problem.message end,
}

-- Returns what an error's body says, a table with code, message and retry; programs decide by code and retry.
local function problem_of(body)
  return setmetatable(cjson.decode(body), Problem)
end

-- Sends a request once, its body in parts to a sink; returns status and headers.
local function exchange(method, path, body, headers, sink)
  headers["Content-Length"] = body and #body
  local done, status, answer = http.request({
    method = method,
    url = bucket .. path,
    headers = headers,
    source = body and ltn12.source.string(body),
    sink = sink,
  })
  if not done then error(status, 0) end
  return status, answer
end

-- Sends a request; repeats it after a pause if the gateway says that nothing was changed.
-- Returns body and headers; or nil and the problem.
local function send(method, path, value, headers)
  headers = headers or {}
  local body
  if value ~= nil then
    body = cjson.encode(value)
    headers["Content-Type"] = "application/json"
  end
  for attempt = 1, ATTEMPTS do
    local parts = {}
    local status, answer = exchange(method, path, body, headers, ltn12.sink.table(parts))
    local text = table.concat(parts)
    if status < 400 then return text, answer end
    local problem = problem_of(text)
    if problem.retry ~= "safe" or attempt == ATTEMPTS then return nil, problem end
    socket.sleep(0.05 * 2 ^ attempt)
  end
end

-- Returns a document and its version; or nil and the problem.
local function read(key)
  local body, headers = send("GET", document(key))
  if not body then return nil, headers end
  return cjson.decode(body), headers.etag
end

-- Stores a document; with etag only if it still has this version. Returns true; or nil and the problem.
local function write(key, value, etag)
  local body, problem = send("PUT", document(key), value, { ["If-Match"] = etag })
  return body and true, problem
end

-- Changes a document without overwriting the changes of others; returns what was stored.
local function update(key, change)
  for _ = 1, ATTEMPTS do
    local value, etag = read(key)
    if not value then return nil, etag end
    change(value)
    local done, problem = write(key, value, etag)
    if done then return value end
    if problem.code ~= "CasMismatch" then return nil, problem end
    print(("%s: %s, reading it again"):format(key, problem.code))
  end
  error(key .. " is changed too often")
end

-- Sends a request; calls take with each line of the answer, parsed, as it arrives.
local function lines(method, path, body, headers, take)
  local rest = ""
  local status = exchange(method, path, body, headers, function(chunk)
    if chunk then
      rest = rest .. chunk
      local first = 1
      for line, next_line in rest:gmatch("([^\n]*)\n()") do
        take(cjson.decode(line))
        first = next_line
      end
      rest = rest:sub(first)
    end
    return 1
  end)
  if status >= 400 then error(problem_of(rest)) end -- an error is one object, without a line end
end

-- Runs operations in one request; calls take with the result of each.
local function batch(operations, take)
  local body = {}
  for number, operation in ipairs(operations) do body[number] = cjson.encode(operation) .. "\n" end
  lines("POST", "/batch", table.concat(body), { ["Content-Type"] = "application/x-ndjson" }, take)
end

-- Queries a view; calls take with each row. Parameters are JSON.
local function rows(design, view, parameters, take)
  local query = {}
  for name, value in pairs(parameters) do query[#query + 1] = name .. "=" .. encode(cjson.encode(value)) end
  local path = ("/views/%s/%s?%s"):format(design, view, table.concat(query, "&"))
  lines("GET", path, nil, { Accept = "application/x-ndjson" }, function(row)
    if row.error then error(setmetatable(row.error, Problem)) end -- a failure after the first row
    take(row)
  end)
end

assert(write("concert/berlin", { type = "concert", city = "Berlin", seats = 5 }))
local concert = assert(read("concert/berlin"))
print(("%s: %d seats"):format(concert.city, concert.seats))

local function sell(seen)
  seen.seats = seen.seats - 1
end

concert = assert(update("concert/berlin", function(seen)
  if seen.seats == 5 then -- another customer buys between our read and our write
    assert(update("concert/berlin", sell))
  end
  sell(seen)
end))
print(("%s: %d seats"):format(concert.city, concert.seats))

local _, problem = read("concert/nowhere")
print(("concert/nowhere: %s, retry %s"):format(problem.code, problem.retry))

assert(write("note", { text = "sold out soon" }))
assert(send("POST", document("note") .. "/lock", { lockTime = 1 }))
assert(write("note", { text = "sold out" })) -- DocumentLocked, retry "safe", until the lock expires
print("note: stored after the lock expired")

batch({
  { op = "set", key = "concert/lisbon", value = { type = "concert", city = "Lisbon", seats = 8 } },
  { op = "set", key = "concert/malmö", value = { type = "concert", city = "Malmö", seats = 7 } },
  { op = "add", key = "concert/lisbon", value = {} },
}, function(result)
  local code = result.error and " " .. result.error.code or ""
  print(("batch: %s %d%s"):format(result.key, result.status, code))
end)

local map = "function (doc, meta) { if (doc.type == 'concert') emit(doc.city, doc.seats); }"
assert(send("PUT", "/designs/concerts", { views = { by_city = { map = map } } }))
rows("concerts", "by_city", { startkey = "B", stale = false }, function(row)
  print(("view: %s %d"):format(row.key, row.value))
end)

for _ = 1, 2 do
  print("visitors: " .. assert(send("POST", document("visitors") .. "/increment", { initial = 1 })))
end
