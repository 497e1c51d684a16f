# Sell concert tickets over HTTP with Ruby's net/http (Ruby 3.1 or later).
#
#     ruby tickets.rb [URL of a bucket]

require "erb"
require "json"
require "net/http"

# An answer with a status of 400 or more; programs decide by `code` and `retry`.
class GatewayError < StandardError
  attr_reader :code, :retry

  def initialize(problem)
    @code, @retry = problem.values_at("code", "retry")
    super("#{code}: #{problem["message"]}")
  end
end

# A bucket behind one connection, which stays open.
class Bucket
  ATTEMPTS = 6 # how often a request is sent, and how often a change is tried

  # Yield a bucket; the connection is closed at the end of the block.
  def self.open(url)
    uri = URI(url)
    options = { use_ssl: uri.scheme == "https", open_timeout: 2, read_timeout: 10, write_timeout: 10 }
    Net::HTTP.start(uri.hostname, uri.port, **options) { |http| yield new(http, uri.path) }
  end

  # The path of a document; a slash in its key is percent-encoded, too.
  def self.document(key) = "/documents/#{ERB::Util.url_encode(key)}"

  def initialize(http, path)
    @http = http
    @path = path
  end

  # Send a request; repeat it after a pause if the gateway says that nothing was changed.
  def send_request(method, path, json: nil, headers: {})
    attempt = 0
    begin
      request = build(method, path, headers)
      unless json.nil?
        request.content_type = "application/json"
        request.body = JSON.generate(json)
      end
      response = @http.request(request)
      raise GatewayError, JSON.parse(response.body) unless response.is_a?(Net::HTTPSuccess)
    rescue GatewayError => e
      raise if e.retry != "safe" || (attempt += 1) == ATTEMPTS

      sleep(0.05 * 2**attempt)
      retry
    end
    response
  end

  # A document and its version.
  def read(key)
    response = send_request("GET", Bucket.document(key))
    [JSON.parse(response.body), response["ETag"]]
  end

  # Store a document; with `etag` only if it still has this version.
  def write(key, value, etag: nil)
    send_request("PUT", Bucket.document(key), json: value, headers: etag ? { "If-Match" => etag } : {})
  end

  # Change a document without overwriting the changes of others; return what was stored.
  def update(key)
    ATTEMPTS.times do
      value, etag = read(key)
      value = yield value
      write(key, value, etag: etag)
      return value
    rescue GatewayError => e
      raise unless e.code == "CasMismatch"

      puts "#{key}: #{e.code}, reading it again"
    end
    raise "#{key} is changed too often"
  end

  # Run operations in one request; yield the result of each as it arrives.
  def batch(operations, &block)
    request = build("POST", "/batch", "Content-Type" => "application/x-ndjson")
    request.body = operations.map { |operation| JSON.generate(operation) << "\n" }.join
    lines(request, &block)
  end

  # Query a view; yield its rows as they arrive. Parameters are JSON.
  def rows(design, view, **parameters)
    query = URI.encode_www_form(parameters.transform_values { |value| JSON.generate(value) })
    request = build("GET", "/views/#{design}/#{view}?#{query}", "Accept" => "application/x-ndjson")
    lines(request) do |row|
      raise GatewayError, row["error"] if row["error"] # a failure after the first row

      yield row
    end
  end

  private

  def build(method, path, headers)
    Net::HTTPGenericRequest.new(method, method != "GET", true, @path + path, headers)
  end

  # Send a request; yield the lines of the answer, each parsed.
  def lines(request)
    @http.request(request) do |response|
      raise GatewayError, JSON.parse(response.read_body) unless response.is_a?(Net::HTTPSuccess)

      rest = String.new # bytes: a chunk may end within a character
      response.read_body do |chunk|
        rest << chunk
        while (line = rest.slice!(/\A.*\n/))
          yield JSON.parse(line)
        end
      end
    end
  end
end

Bucket.open(ARGV.fetch(0, "http://127.0.0.1:8080/v1/buckets/default")) do |bucket|
  bucket.write("concert/berlin", { type: "concert", city: "Berlin", seats: 5 })
  concert, = bucket.read("concert/berlin")
  puts "#{concert["city"]}: #{concert["seats"]} seats"

  sell = ->(seen) { seen.merge("seats" => seen["seats"] - 1) }
  concert = bucket.update("concert/berlin") do |seen|
    # Another customer buys between our read and our write.
    bucket.update("concert/berlin", &sell) if seen["seats"] == 5
    sell.call(seen)
  end
  puts "#{concert["city"]}: #{concert["seats"]} seats"

  begin
    bucket.read("concert/nowhere")
  rescue GatewayError => e
    puts "concert/nowhere: #{e.code}, retry #{e.retry}"
  end

  bucket.write("note", { text: "sold out soon" })
  bucket.send_request("POST", "#{Bucket.document("note")}/lock", json: { lockTime: 1 })
  bucket.write("note", { text: "sold out" }) # DocumentLocked, retry "safe", until the lock expires
  puts "note: stored after the lock expired"

  operations = [
    { op: "set", key: "concert/lisbon", value: { type: "concert", city: "Lisbon", seats: 8 } },
    { op: "set", key: "concert/malmö", value: { type: "concert", city: "Malmö", seats: 7 } },
    { op: "add", key: "concert/lisbon", value: {} }
  ]
  bucket.batch(operations) do |result|
    puts ["batch:", result["key"], result["status"], result.dig("error", "code")].compact.join(" ")
  end

  map = "function (doc, meta) { if (doc.type == 'concert') emit(doc.city, doc.seats); }"
  bucket.send_request("PUT", "/designs/concerts", json: { views: { by_city: { map: map } } })
  bucket.rows("concerts", "by_city", startkey: "B", stale: false) do |row|
    puts "view: #{row["key"]} #{row["value"]}"
  end

  2.times do
    response = bucket.send_request("POST", "#{Bucket.document("visitors")}/increment", json: { initial: 1 })
    puts "visitors: #{response.body}"
  end
end
