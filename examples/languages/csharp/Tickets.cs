// Sells concert tickets over HTTP with HttpClient and System.Text.Json (.NET Core 3.1 or later, C# 7).
//
//     dotnet run -- [URL of a bucket]

using System;
using System.Collections.Generic;
using System.IO;
using System.Linq;
using System.Net.Http;
using System.Text;
using System.Text.Encodings.Web;
using System.Text.Json;
using System.Threading.Tasks;

/// <summary>An answer with a status of 400 or more; programs decide by Code and Retry.</summary>
public sealed class GatewayException : Exception
{
    public GatewayException(JsonElement problem)
        : base(problem.GetProperty("code").GetString() + ": " + problem.GetProperty("message").GetString())
    {
        Code = problem.GetProperty("code").GetString();
        Retry = problem.GetProperty("retry").GetString();
    }

    public string Code { get; }

    public string Retry { get; }
}

/// <summary>A document.</summary>
public sealed class Concert
{
    public string Type { get; set; } = "concert";

    public string City { get; set; }

    public int Seats { get; set; }
}

/// <summary>A bucket behind one client, which keeps its connections open.</summary>
public sealed class Bucket
{
    /// <summary>How often a request is sent, and how often a change is tried.</summary>
    private const int Attempts = 6;

    private static readonly JsonSerializerOptions Options = new JsonSerializerOptions
    {
        PropertyNamingPolicy = JsonNamingPolicy.CamelCase,
        Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping,
    };

    private readonly HttpClient client;
    private readonly string url;

    public Bucket(string url)
    {
        this.url = url;
        var handler = new SocketsHttpHandler { ConnectTimeout = TimeSpan.FromSeconds(2) };
        client = new HttpClient(handler) { Timeout = TimeSpan.FromSeconds(10) };
    }

    /// <summary>Returns the path of a document; a slash in its key is percent-encoded, too.</summary>
    public static string Document(string key) => "/documents/" + Uri.EscapeDataString(key);

    /// <summary>Sends a value as JSON; repeats it after a pause if the gateway says that nothing was changed.</summary>
    public async Task<HttpResponseMessage> SendAsync(string method, string path, object value = null, string etag = null)
    {
        for (var attempt = 1; ; attempt++)
        {
            // A request can be sent only once.
            var request = new HttpRequestMessage(new HttpMethod(method), url + path);
            if (value != null)
            {
                request.Content = new StringContent(JsonSerializer.Serialize(value, Options), Encoding.UTF8, "application/json");
            }

            if (etag != null)
            {
                // Add checks the form of an ETag, which has quotes in RFC 9110 and none here.
                request.Headers.TryAddWithoutValidation("If-Match", etag);
            }

            var response = await client.SendAsync(request);
            if (response.IsSuccessStatusCode)
            {
                return response;
            }

            var problem = new GatewayException(Parsed(await response.Content.ReadAsStringAsync()));
            response.Dispose();
            if (problem.Retry != "safe" || attempt == Attempts)
            {
                throw problem;
            }

            await Task.Delay(50 << attempt);
        }
    }

    /// <summary>Returns a document and its version.</summary>
    public async Task<Tuple<T, string>> ReadAsync<T>(string key)
    {
        using (var response = await SendAsync("GET", Document(key)))
        {
            var value = JsonSerializer.Deserialize<T>(await response.Content.ReadAsStringAsync(), Options);
            return Tuple.Create(value, response.Headers.GetValues("ETag").Single());
        }
    }

    /// <summary>Stores a document; with an etag only if it still has this version.</summary>
    public async Task WriteAsync(string key, object value, string etag = null)
    {
        (await SendAsync("PUT", Document(key), value, etag)).Dispose();
    }

    /// <summary>Changes a document without overwriting the changes of others; returns what was stored.</summary>
    public async Task<T> UpdateAsync<T>(string key, Func<T, Task> change)
    {
        for (var attempt = 0; attempt < Attempts; attempt++)
        {
            var seen = await ReadAsync<T>(key);
            await change(seen.Item1);
            try
            {
                await WriteAsync(key, seen.Item1, seen.Item2);
                return seen.Item1;
            }
            catch (GatewayException problem) when (problem.Code == "CasMismatch")
            {
                Console.WriteLine($"{key}: {problem.Code}, reading it again");
            }
        }

        throw new TimeoutException(key + " is changed too often");
    }

    /// <summary>Runs operations in one request; passes on the result of each as it arrives.</summary>
    public Task BatchAsync(IEnumerable<object> operations, Action<JsonElement> take)
    {
        var body = string.Concat(operations.Select(one => JsonSerializer.Serialize(one, Options) + "\n"));
        var content = new StringContent(body, Encoding.UTF8, "application/x-ndjson");
        return LinesAsync(new HttpRequestMessage(HttpMethod.Post, url + "/batch") { Content = content }, take);
    }

    /// <summary>Queries a view; passes on its rows as they arrive. Parameters are JSON.</summary>
    public Task RowsAsync(string design, string view, IDictionary<string, object> parameters, Action<JsonElement> take)
    {
        var query = parameters.Select(one => one.Key + "=" + Uri.EscapeDataString(JsonSerializer.Serialize(one.Value)));
        var request = new HttpRequestMessage(HttpMethod.Get, $"{url}/views/{design}/{view}?{string.Join("&", query)}");
        request.Headers.Add("Accept", "application/x-ndjson");
        return LinesAsync(request, row =>
        {
            if (row.TryGetProperty("error", out var problem))
            {
                throw new GatewayException(problem); // a failure after the first row
            }

            take(row);
        });
    }

    private static JsonElement Parsed(string text)
    {
        using (var document = JsonDocument.Parse(text))
        {
            return document.RootElement.Clone();
        }
    }

    private async Task LinesAsync(HttpRequestMessage request, Action<JsonElement> take)
    {
        using (var response = await client.SendAsync(request, HttpCompletionOption.ResponseHeadersRead))
        {
            if (!response.IsSuccessStatusCode)
            {
                throw new GatewayException(Parsed(await response.Content.ReadAsStringAsync()));
            }

            using (var reader = new StreamReader(await response.Content.ReadAsStreamAsync(), Encoding.UTF8))
            {
                string line;
                while ((line = await reader.ReadLineAsync()) != null)
                {
                    take(Parsed(line));
                }
            }
        }
    }
}

public static class Program
{
    public static void Main(string[] arguments)
    {
        var url = arguments.Length > 0 ? arguments[0] : "http://127.0.0.1:8080/v1/buckets/default";
        RunAsync(new Bucket(url)).GetAwaiter().GetResult();
    }

    private static async Task RunAsync(Bucket bucket)
    {
        await bucket.WriteAsync("concert/berlin", new Concert { City = "Berlin", Seats = 5 });
        var concert = (await bucket.ReadAsync<Concert>("concert/berlin")).Item1;
        Console.WriteLine($"{concert.City}: {concert.Seats} seats");

        Func<Concert, Task> sell = seen =>
        {
            seen.Seats--;
            return Task.CompletedTask;
        };

        concert = await bucket.UpdateAsync<Concert>("concert/berlin", async seen =>
        {
            if (seen.Seats == 5)
            {
                // Another customer buys between our read and our write.
                await bucket.UpdateAsync<Concert>("concert/berlin", sell);
            }

            await sell(seen);
        });
        Console.WriteLine($"{concert.City}: {concert.Seats} seats");

        try
        {
            await bucket.ReadAsync<Concert>("concert/nowhere");
        }
        catch (GatewayException problem)
        {
            Console.WriteLine($"concert/nowhere: {problem.Code}, retry {problem.Retry}");
        }

        await bucket.WriteAsync("note", new { text = "sold out soon" });
        (await bucket.SendAsync("POST", Bucket.Document("note") + "/lock", new { lockTime = 1 })).Dispose();
        await bucket.WriteAsync("note", new { text = "sold out" }); // DocumentLocked, retry "safe", until the lock expires
        Console.WriteLine("note: stored after the lock expired");

        var operations = new object[]
        {
            new { op = "set", key = "concert/lisbon", value = new Concert { City = "Lisbon", Seats = 8 } },
            new { op = "set", key = "concert/malmö", value = new Concert { City = "Malmö", Seats = 7 } },
            new { op = "add", key = "concert/lisbon", value = new { } },
        };
        await bucket.BatchAsync(operations, result =>
        {
            var code = result.TryGetProperty("error", out var problem) ? " " + problem.GetProperty("code") : "";
            Console.WriteLine($"batch: {result.GetProperty("key")} {result.GetProperty("status")}{code}");
        });

        var map = "function (doc, meta) { if (doc.type == 'concert') emit(doc.city, doc.seats); }";
        var design = new { views = new { by_city = new { map } } };
        (await bucket.SendAsync("PUT", "/designs/concerts", design)).Dispose();
        var parameters = new Dictionary<string, object> { ["startkey"] = "B", ["stale"] = false };
        await bucket.RowsAsync("concerts", "by_city", parameters, row =>
            Console.WriteLine($"view: {row.GetProperty("key")} {row.GetProperty("value")}"));

        for (var visit = 0; visit < 2; visit++)
        {
            var path = Bucket.Document("visitors") + "/increment";
            using (var response = await bucket.SendAsync("POST", path, new { initial = 1 }))
            {
                Console.WriteLine("visitors: " + await response.Content.ReadAsStringAsync());
            }
        }
    }
}
