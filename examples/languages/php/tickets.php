<?php
// Sell concert tickets over HTTP with PHP's curl extension (PHP 8.1 or later).
//
//     php tickets.php [URL of a bucket]

declare(strict_types=1);

/** An answer with a status of 400 or more; programs decide by $problem and $retry. */
final class GatewayError extends RuntimeException
{
    public readonly string $problem;
    public readonly string $retry;

    /** @param array<string, mixed> $error */
    public function __construct(array $error)
    {
        parent::__construct("{$error['code']}: {$error['message']}");
        $this->problem = $error['code'];
        $this->retry = $error['retry'];
    }
}

/** A bucket behind one curl handle, which keeps its connection open. */
final class Bucket
{
    private const ATTEMPTS = 6; // how often a request is sent, and how often a change is tried

    private readonly CurlHandle $curl;
    private string $etag = '';

    public function __construct(private readonly string $url)
    {
        $this->curl = curl_init();
    }

    /**
     * Send a request; repeat it after a pause if the gateway says that nothing was changed.
     *
     * @param list<string> $headers
     */
    public function send(string $method, string $path, mixed $json = null, array $headers = []): string
    {
        $body = null;
        if ($json !== null) {
            $headers[] = 'Content-Type: application/json';
            $body = self::json($json);
        }
        for ($attempt = 0; ; $attempt++) {
            $answer = '';
            $collect = function (string $chunk) use (&$answer): void { $answer .= $chunk; };
            try {
                $this->exchange($method, $path, $body, $headers, $collect);
                return $answer;
            } catch (GatewayError $error) {
                if ($error->retry !== 'safe' || $attempt + 1 === self::ATTEMPTS) {
                    throw $error;
                }
                usleep(100_000 * 2 ** $attempt);
            }
        }
    }

    /** @return array{mixed, string} a document and its version */
    public function read(string $key): array
    {
        $body = $this->send('GET', self::document($key));
        return [self::parsed($body), $this->etag];
    }

    /** Store a document; with $etag only if it still has this version. */
    public function write(string $key, mixed $value, ?string $etag = null): void
    {
        $this->send('PUT', self::document($key), $value, $etag === null ? [] : ["If-Match: $etag"]);
    }

    /** Change a document without overwriting the changes of others; return what was stored. */
    public function update(string $key, callable $change): mixed
    {
        for ($attempt = 0; $attempt < self::ATTEMPTS; $attempt++) {
            [$value, $etag] = $this->read($key);
            $value = $change($value);
            try {
                $this->write($key, $value, $etag);
                return $value;
            } catch (GatewayError $error) {
                if ($error->problem !== 'CasMismatch') {
                    throw $error;
                }
                echo "$key: {$error->problem}, reading it again\n";
            }
        }
        throw new RuntimeException("$key is changed too often");
    }

    /**
     * Run operations in one request; call $take with the result of each as it arrives.
     *
     * @param list<array<string, mixed>> $operations
     */
    public function batch(array $operations, callable $take): void
    {
        $body = implode('', array_map(fn (array $one): string => self::json($one) . "\n", $operations));
        $this->lines('POST', '/batch', $body, ['Content-Type: application/x-ndjson'], $take);
    }

    /**
     * Query a view; call $take with each row as it arrives.
     *
     * @param array<string, mixed> $parameters they are sent as JSON
     */
    public function rows(string $design, string $view, array $parameters, callable $take): void
    {
        $query = http_build_query(array_map(self::json(...), $parameters));
        $accept = ['Accept: application/x-ndjson'];
        $this->lines('GET', "/views/$design/$view?$query", null, $accept, function (array $row) use ($take): void {
            if (isset($row['error'])) { // a failure after the first row
                throw new GatewayError($row['error']);
            }
            $take($row);
        });
    }

    /** Return the path of a document; a slash in its key is percent-encoded, too. */
    public static function document(string $key): string
    {
        return '/documents/' . rawurlencode($key);
    }

    /** @param list<string> $headers */
    private function lines(string $method, string $path, ?string $body, array $headers, callable $take): void
    {
        $rest = '';
        $this->exchange($method, $path, $body, $headers, function (string $chunk) use (&$rest, $take): void {
            $lines = explode("\n", $rest . $chunk);
            $rest = array_pop($lines);
            foreach ($lines as $line) {
                $take(self::parsed($line));
            }
        });
    }

    /**
     * Send a request once; call $receive with each part of the body.
     *
     * @param list<string> $headers
     */
    private function exchange(string $method, string $path, ?string $body, array $headers, callable $receive): void
    {
        $problem = '';
        $this->etag = '';
        curl_reset($this->curl); // resets the options; the connection stays open
        curl_setopt_array($this->curl, [
            CURLOPT_URL => $this->url . $path,
            CURLOPT_CUSTOMREQUEST => $method,
            CURLOPT_HTTPHEADER => $headers,
            CURLOPT_CONNECTTIMEOUT => 2,
            CURLOPT_LOW_SPEED_LIMIT => 1, // ends a request that brings nothing for ten seconds
            CURLOPT_LOW_SPEED_TIME => 10,
            CURLOPT_HEADERFUNCTION => function (CurlHandle $curl, string $line): int {
                if (stripos($line, 'ETag:') === 0) {
                    $this->etag = trim(substr($line, 5));
                }
                return strlen($line);
            },
            CURLOPT_WRITEFUNCTION => function (CurlHandle $curl, string $chunk) use (&$problem, $receive): int {
                if (curl_getinfo($curl, CURLINFO_RESPONSE_CODE) >= 400) {
                    $problem .= $chunk;
                } else {
                    $receive($chunk);
                }
                return strlen($chunk);
            },
        ]);
        if ($body !== null) {
            curl_setopt($this->curl, CURLOPT_POSTFIELDS, $body);
        }
        if (curl_exec($this->curl) === false) {
            throw new RuntimeException(curl_error($this->curl));
        }
        if (curl_getinfo($this->curl, CURLINFO_RESPONSE_CODE) >= 400) {
            throw new GatewayError(self::parsed($problem));
        }
    }

    private static function json(mixed $value): string
    {
        return json_encode($value, JSON_THROW_ON_ERROR | JSON_UNESCAPED_SLASHES | JSON_UNESCAPED_UNICODE);
    }

    private static function parsed(string $text): mixed
    {
        return json_decode($text, associative: true, flags: JSON_THROW_ON_ERROR);
    }
}

$bucket = new Bucket($argv[1] ?? 'http://127.0.0.1:8080/v1/buckets/default');

$bucket->write('concert/berlin', ['type' => 'concert', 'city' => 'Berlin', 'seats' => 5]);
[$concert] = $bucket->read('concert/berlin');
echo "{$concert['city']}: {$concert['seats']} seats\n";

$sell = fn (array $concert): array => ['seats' => $concert['seats'] - 1] + $concert;
$concert = $bucket->update('concert/berlin', function (array $concert) use ($bucket, $sell): array {
    if ($concert['seats'] === 5) { // another customer buys between our read and our write
        $bucket->update('concert/berlin', $sell);
    }
    return $sell($concert);
});
echo "{$concert['city']}: {$concert['seats']} seats\n";

try {
    $bucket->read('concert/nowhere');
} catch (GatewayError $error) {
    echo "concert/nowhere: {$error->problem}, retry {$error->retry}\n";
}

$bucket->write('note', ['text' => 'sold out soon']);
$bucket->send('POST', Bucket::document('note') . '/lock', ['lockTime' => 1]);
$bucket->write('note', ['text' => 'sold out']); // DocumentLocked, retry "safe", until the lock expires
echo "note: stored after the lock expired\n";

$operations = [
    ['op' => 'set', 'key' => 'concert/lisbon', 'value' => ['type' => 'concert', 'city' => 'Lisbon', 'seats' => 8]],
    ['op' => 'set', 'key' => 'concert/malmö', 'value' => ['type' => 'concert', 'city' => 'Malmö', 'seats' => 7]],
    ['op' => 'add', 'key' => 'concert/lisbon', 'value' => new stdClass()], // {}; an empty array would be []
];
$bucket->batch($operations, function (array $result): void {
    echo rtrim("batch: {$result['key']} {$result['status']} " . ($result['error']['code'] ?? '')), "\n";
});

$map = "function (doc, meta) { if (doc.type == 'concert') emit(doc.city, doc.seats); }";
$bucket->send('PUT', '/designs/concerts', ['views' => ['by_city' => ['map' => $map]]]);
$bucket->rows('concerts', 'by_city', ['startkey' => 'B', 'stale' => false], function (array $row): void {
    echo "view: {$row['key']} {$row['value']}\n";
});

for ($visit = 0; $visit < 2; $visit++) {
    $count = $bucket->send('POST', Bucket::document('visitors') . '/increment', ['initial' => 1]);
    echo "visitors: $count\n";
}
