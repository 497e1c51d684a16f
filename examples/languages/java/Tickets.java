import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.net.URI;
import java.net.URLEncoder;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublisher;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.stream.Collectors;
import java.util.stream.Stream;

/**
 * Sells concert tickets over HTTP with java.net.http and Jackson (Java 17 or later).
 *
 * <p>{@code java -cp "lib/*" Tickets.java [URL of a bucket]}
 */
public final class Tickets {
  /** How often a request is sent, and how often a change is tried. */
  private static final int ATTEMPTS = 6;

  private static final ObjectMapper JSON = new ObjectMapper();

  /** An answer with a status of 400 or more; programs decide by {@code code} and {@code retry}. */
  static final class GatewayException extends IOException {
    final String code;
    final String retry;

    GatewayException(JsonNode problem) {
      super(problem.path("code").asText() + ": " + problem.path("message").asText());
      code = problem.path("code").asText();
      retry = problem.path("retry").asText();
    }
  }

  /** A document and its version. */
  record Version(ObjectNode value, String etag) {}

  /** A change of a document, which may itself fail. */
  interface Change {
    void apply(ObjectNode value) throws IOException, InterruptedException;
  }

  /** What is done with a line of an answer. */
  interface Line {
    void accept(JsonNode line) throws IOException;
  }

  /** A bucket behind one client, which keeps its connections open. */
  static final class Bucket {
    private final HttpClient client =
        HttpClient.newBuilder()
            .version(HttpClient.Version.HTTP_1_1)
            .connectTimeout(Duration.ofSeconds(2))
            .build();
    private final String url;

    Bucket(String url) {
      this.url = url;
    }

    /** Sends a value as JSON; repeats it after a pause if the gateway says that nothing was changed. */
    String send(String method, String path, Object value) throws IOException, InterruptedException {
      return send(request(method, path, value)).body();
    }

    private HttpResponse<String> send(HttpRequest.Builder request) throws IOException, InterruptedException {
      for (int attempt = 1; ; attempt++) {
        HttpResponse<String> response = client.send(request.build(), BodyHandlers.ofString());
        if (response.statusCode() < 400) {
          return response;
        }
        GatewayException problem = new GatewayException(JSON.readTree(response.body()));
        if (!problem.retry.equals("safe") || attempt == ATTEMPTS) {
          throw problem;
        }
        Thread.sleep(50L << attempt);
      }
    }

    private HttpRequest.Builder request(String method, String path, Object value) throws IOException {
      BodyPublisher body = BodyPublishers.noBody();
      HttpRequest.Builder request = HttpRequest.newBuilder(URI.create(url + path)).timeout(Duration.ofSeconds(10));
      if (value != null) {
        request.header("Content-Type", "application/json");
        body = BodyPublishers.ofString(JSON.writeValueAsString(value));
      }
      return request.method(method, body);
    }

    /** Returns a document and its version. */
    Version read(String key) throws IOException, InterruptedException {
      HttpResponse<String> response = send(request("GET", document(key), null));
      ObjectNode value = (ObjectNode) JSON.readTree(response.body());
      return new Version(value, response.headers().firstValue("ETag").orElseThrow());
    }

    /** Stores a document; with an {@code etag} only if it still has this version. */
    void write(String key, Object value, String etag) throws IOException, InterruptedException {
      HttpRequest.Builder request = request("PUT", document(key), value);
      if (etag != null) {
        request.header("If-Match", etag);
      }
      send(request);
    }

    /** Changes a document without overwriting the changes of others; returns what was stored. */
    ObjectNode update(String key, Change change) throws IOException, InterruptedException {
      for (int attempt = 0; attempt < ATTEMPTS; attempt++) {
        Version seen = read(key);
        change.apply(seen.value());
        try {
          write(key, seen.value(), seen.etag());
          return seen.value();
        } catch (GatewayException problem) {
          if (!problem.code.equals("CasMismatch")) {
            throw problem;
          }
          System.out.printf("%s: %s, reading it again%n", key, problem.code);
        }
      }
      throw new IOException(key + " is changed too often");
    }

    /** Runs operations in one request; passes on the result of each as it arrives. */
    void batch(List<Map<String, ?>> operations, Line take) throws IOException, InterruptedException {
      StringBuilder body = new StringBuilder();
      for (Map<String, ?> operation : operations) {
        body.append(JSON.writeValueAsString(operation)).append('\n');
      }
      HttpRequest.Builder request = request("POST", "/batch", null);
      request.header("Content-Type", "application/x-ndjson");
      lines(request.POST(BodyPublishers.ofString(body.toString())), take);
    }

    /** Queries a view; passes on its rows as they arrive. Parameters are JSON. */
    void rows(String design, String view, Map<String, ?> parameters, Line take)
        throws IOException, InterruptedException {
      StringBuilder query = new StringBuilder();
      for (Map.Entry<String, ?> parameter : parameters.entrySet()) {
        query.append(query.isEmpty() ? '?' : '&').append(parameter.getKey()).append('=');
        query.append(encode(JSON.writeValueAsString(parameter.getValue())));
      }
      HttpRequest.Builder request = request("GET", "/views/" + design + "/" + view + query, null);
      lines(
          request.header("Accept", "application/x-ndjson"),
          row -> {
            if (row.has("error")) { // a failure after the first row
              throw new GatewayException(row.get("error"));
            }
            take.accept(row);
          });
    }

    private void lines(HttpRequest.Builder request, Line take) throws IOException, InterruptedException {
      HttpResponse<Stream<String>> response = client.send(request.build(), BodyHandlers.ofLines());
      try (Stream<String> lines = response.body()) { // closing it cancels the request
        if (response.statusCode() >= 400) {
          throw new GatewayException(JSON.readTree(lines.collect(Collectors.joining("\n"))));
        }
        for (String line : (Iterable<String>) lines::iterator) {
          take.accept(JSON.readTree(line));
        }
      }
    }

    static String encode(String text) {
      return URLEncoder.encode(text, StandardCharsets.UTF_8).replace("+", "%20");
    }

    /** Returns the path of a document; a slash in its key is percent-encoded, too. */
    static String document(String key) {
      return "/documents/" + encode(key);
    }
  }

  private static Map<String, ?> concert(String city, int seats) {
    return Map.of("type", "concert", "city", city, "seats", seats);
  }

  private static void sell(ObjectNode concert) {
    concert.put("seats", concert.get("seats").asInt() - 1);
  }

  private static void show(ObjectNode concert) {
    System.out.printf("%s: %d seats%n", concert.get("city").asText(), concert.get("seats").asInt());
  }

  public static void main(String[] arguments) throws IOException, InterruptedException {
    Bucket bucket = new Bucket(arguments.length > 0 ? arguments[0] : "http://127.0.0.1:8080/v1/buckets/default");

    bucket.write("concert/berlin", concert("Berlin", 5), null);
    show(bucket.read("concert/berlin").value());
    show(
        bucket.update(
            "concert/berlin",
            seen -> {
              if (seen.get("seats").asInt() == 5) { // another customer buys between our read and our write
                bucket.update("concert/berlin", Tickets::sell);
              }
              sell(seen);
            }));

    try {
      bucket.read("concert/nowhere");
    } catch (GatewayException problem) {
      System.out.printf("concert/nowhere: %s, retry %s%n", problem.code, problem.retry);
    }

    bucket.write("note", Map.of("text", "sold out soon"), null);
    bucket.send("POST", Bucket.document("note") + "/lock", Map.of("lockTime", 1));
    // DocumentLocked, retry "safe", until the lock expires.
    bucket.write("note", Map.of("text", "sold out"), null);
    System.out.println("note: stored after the lock expired");

    List<Map<String, ?>> operations =
        List.of(
            Map.of("op", "set", "key", "concert/lisbon", "value", concert("Lisbon", 8)),
            Map.of("op", "set", "key", "concert/malmö", "value", concert("Malmö", 7)),
            Map.of("op", "add", "key", "concert/lisbon", "value", Map.of()));
    bucket.batch(
        operations,
        result -> {
          String code = result.path("error").path("code").asText();
          String line = "batch: %s %d %s".formatted(result.get("key").asText(), result.get("status").asInt(), code);
          System.out.println(line.stripTrailing());
        });

    String map = "function (doc, meta) { if (doc.type == 'concert') emit(doc.city, doc.seats); }";
    bucket.send("PUT", "/designs/concerts", Map.of("views", Map.of("by_city", Map.of("map", map))));
    bucket.rows(
        "concerts",
        "by_city",
        Map.of("startkey", "B", "stale", false),
        row -> System.out.printf("view: %s %d%n", row.get("key").asText(), row.get("value").asInt()));

    for (int visit = 0; visit < 2; visit++) {
      String count = bucket.send("POST", Bucket.document("visitors") + "/increment", Map.of("initial", 1));
      System.out.println("visitors: " + count);
    }
  }
}
