# Sell concert tickets over HTTP with Erlang's httpc, which keeps its connections open, and jiffy for JSON
# (Elixir 1.14 or later).
#
#     elixir tickets.exs [URL of a bucket]

defmodule GatewayError do
  @moduledoc "An answer with a status of 400 or more; programs decide by `code` and `retry`."
  defexception [:code, :retry, :message]

  @impl true
  def exception(%{"code" => code, "retry" => retry, "message" => message}) do
    struct!(__MODULE__, code: code, retry: retry, message: "#{code}: #{message}")
  end
end

defmodule Bucket do
  @moduledoc "A bucket behind the gateway."

  # How often a request is sent, and how often a change is tried.
  @attempts 6
  # Milliseconds.
  @timeouts [connect_timeout: 2_000, timeout: 10_000]

  @doc "Sends a value as JSON; repeats the request after a pause if the gateway says that nothing was changed."
  def send!(bucket, method, path, value \\ nil, headers \\ [], attempt \\ 1) do
    {:ok, {{_, status, _}, answer, body}} =
      :httpc.request(method, request(bucket, path, headers, value && encode(value)), @timeouts,
        body_format: :binary
      )

    if status < 400 do
      {body, answer}
    else
      error = GatewayError.exception(decode(body))
      if error.retry != "safe" or attempt == @attempts, do: raise(error)
      Process.sleep(50 * 2 ** attempt)
      send!(bucket, method, path, value, headers, attempt + 1)
    end
  end

  @doc "Returns a document and its version."
  def read!(bucket, key) do
    {body, headers} = send!(bucket, :get, document(key))
    {decode(body), :proplists.get_value('etag', headers)}
  end

  @doc "Stores a document; with an `etag` only if it still has this version."
  def write!(bucket, key, value, etag \\ nil) do
    send!(bucket, :put, document(key), value, if(etag, do: [{'if-match', etag}], else: []))
    :ok
  end

  @doc "Changes a document without overwriting the changes of others; returns what was stored."
  def update!(bucket, key, change, attempt \\ 1) do
    {seen, etag} = read!(bucket, key)
    value = change.(seen)

    try do
      write!(bucket, key, value, etag)
    rescue
      error in GatewayError ->
        if error.code != "CasMismatch" or attempt == @attempts, do: reraise(error, __STACKTRACE__)
        IO.puts("#{key}: #{error.code}, reading it again")
        update!(bucket, key, change, attempt + 1)
    else
      :ok -> value
    end
  end

  @doc "Runs operations in one request; returns a stream of their results."
  def batch(bucket, operations) do
    body = Enum.map_join(operations, &(encode(&1) <> "\n"))
    lines(:post, request(bucket, "/batch", [], body, 'application/x-ndjson'))
  end

  @doc "Queries a view; returns a stream of its rows. Parameters are JSON."
  def rows(bucket, design, view, parameters) do
    query = URI.encode_query(Enum.map(parameters, fn {name, value} -> {name, encode(value)} end))
    path = "/views/#{design}/#{view}?#{query}"

    lines(:get, request(bucket, path, [{'accept', 'application/x-ndjson'}], nil))
    |> Stream.map(fn
      # A failure after the first row.
      %{"error" => problem} -> raise GatewayError, problem
      row -> row
    end)
  end

  @doc "Returns the path of a document; a slash in its key is percent-encoded, too."
  def document(key), do: "/documents/" <> URI.encode(key, &URI.char_unreserved?/1)

  defp request(bucket, path, headers, body, type \\ 'application/json')
  defp request(bucket, path, headers, nil, _type), do: {to_charlist(bucket <> path), headers}

  defp request(bucket, path, headers, body, type),
    do: {to_charlist(bucket <> path), headers, type, body}

  # The lines of an answer, each parsed. httpc sends the parts of the body to this process, one for each request.
  defp lines(method, request) do
    Stream.resource(
      fn ->
        {:ok, id} =
          :httpc.request(method, request, @timeouts, sync: false, stream: {:self, :once})

        {id, nil, ""}
      end,
      fn
        :over -> {:halt, :over}
        {id, from, rest} -> next(id, from, rest)
      end,
      fn
        :over -> :ok
        {id, _, _} -> :httpc.cancel_request(id)
      end
    )
  end

  defp next(id, from, rest) do
    if from, do: :httpc.stream_next(from)

    receive do
      {:http, {^id, :stream_start, _headers, from}} ->
        {[], {id, from, rest}}

      {:http, {^id, :stream, chunk}} ->
        {complete, [rest]} = String.split(rest <> chunk, "\n") |> Enum.split(-1)
        {Enum.map(complete, &decode/1), {id, from, rest}}

      {:http, {^id, :stream_end, _headers}} ->
        {:halt, :over}

      # Only answers with status 200 come in parts.
      {:http, {^id, {{_, _status, _}, _headers, body}}} ->
        raise GatewayError, decode(body)

      {:http, {^id, {:error, reason}}} ->
        raise "no answer: #{inspect(reason)}"
    after
      10_000 -> raise "the answer stalls"
    end
  end

  defp encode(value), do: IO.iodata_to_binary(:jiffy.encode(value))
  defp decode(text), do: :jiffy.decode(text, [:return_maps])
end

{:ok, _} = Application.ensure_all_started(:inets)
bucket = List.first(System.argv()) || "http://127.0.0.1:8080/v1/buckets/default"

Bucket.write!(bucket, "concert/berlin", %{type: "concert", city: "Berlin", seats: 5})
{concert, _} = Bucket.read!(bucket, "concert/berlin")
IO.puts("#{concert["city"]}: #{concert["seats"]} seats")

sell = fn seen -> Map.update!(seen, "seats", &(&1 - 1)) end

concert =
  Bucket.update!(bucket, "concert/berlin", fn seen ->
    # Another customer buys between our read and our write.
    if seen["seats"] == 5, do: Bucket.update!(bucket, "concert/berlin", sell)
    sell.(seen)
  end)

IO.puts("#{concert["city"]}: #{concert["seats"]} seats")

try do
  Bucket.read!(bucket, "concert/nowhere")
rescue
  error in GatewayError -> IO.puts("concert/nowhere: #{error.code}, retry #{error.retry}")
end

Bucket.write!(bucket, "note", %{text: "sold out soon"})
Bucket.send!(bucket, :post, Bucket.document("note") <> "/lock", %{lockTime: 1})
# DocumentLocked, retry "safe", until the lock expires.
Bucket.write!(bucket, "note", %{text: "sold out"})
IO.puts("note: stored after the lock expired")

operations = [
  %{op: "set", key: "concert/lisbon", value: %{type: "concert", city: "Lisbon", seats: 8}},
  %{op: "set", key: "concert/malmö", value: %{type: "concert", city: "Malmö", seats: 7}},
  %{op: "add", key: "concert/lisbon", value: %{}}
]

for %{"key" => key, "status" => status} = result <- Bucket.batch(bucket, operations) do
  IO.puts(String.trim_trailing("batch: #{key} #{status} #{result["error"]["code"]}"))
end

map = "function (doc, meta) { if (doc.type == 'concert') emit(doc.city, doc.seats); }"
Bucket.send!(bucket, :put, "/designs/concerts", %{views: %{by_city: %{map: map}}})

for %{"key" => city, "value" => seats} <-
      Bucket.rows(bucket, "concerts", "by_city", startkey: "B", stale: false) do
  IO.puts("view: #{city} #{seats}")
end

for _ <- 1..2 do
  {count, _} =
    Bucket.send!(bucket, :post, Bucket.document("visitors") <> "/increment", %{initial: 1})

  IO.puts("visitors: #{count}")
end
