//! Sell concert tickets over HTTP with ureq, whose agent keeps connections open.
//!
//!     cargo run -- [URL of a bucket]

use std::fmt;
use std::thread::sleep;
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use ureq::http::{Request, Response};
use ureq::{Agent, Body};

/// How often a request is sent, and how often a change is tried.
const ATTEMPTS: u32 = 6;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// An answer with a status of 400 or more; programs decide by `code` and `retry`.
#[derive(Debug, Deserialize)]
struct GatewayError {
    code: String,
    message: String,
    retry: String,
}

impl fmt::Display for GatewayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for GatewayError {}

/// A document.
#[derive(Deserialize, Serialize)]
struct Concert {
    r#type: String,
    city: String,
    seats: u32,
}

/// A line of a batch's answer.
#[derive(Deserialize)]
struct BatchResult {
    key: String,
    status: u16,
    error: Option<GatewayError>,
}

/// A line of a view's answer: a row, or the error that ended it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Line<K, V> {
    Error { error: GatewayError },
    Row { key: K, value: V },
}

/// A bucket and the agent that sends its requests.
struct Bucket {
    url: String,
    agent: Agent,
}

impl Bucket {
    fn new(url: String) -> Self {
        let config = Agent::config_builder()
            .timeout_connect(Some(Duration::from_secs(2)))
            .timeout_recv_response(Some(Duration::from_secs(10)))
            .http_status_as_error(false)
            .build();
        Self {
            url,
            agent: config.into(),
        }
    }

    /// Sends a request once.
    fn once(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&str>,
    ) -> Result<Response<Body>> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut response = match body {
            Some(text) => self.agent.run(request.body(text)?)?,
            None => self.agent.run(request.body(())?)?,
        };
        if response.status().is_success() {
            return Ok(response);
        }
        let problem: GatewayError = serde_json::from_reader(response.body_mut().as_reader())?;
        Err(problem.into())
    }

    /// Sends a value as JSON; repeats the request after a pause if the gateway says that nothing was changed.
    fn send(
        &self,
        method: &str,
        path: &str,
        value: Option<&impl Serialize>,
        etag: Option<&str>,
    ) -> Result<Response<Body>> {
        let body = value.map(serde_json::to_string).transpose()?;
        let mut headers = vec![];
        if body.is_some() {
            headers.push(("Content-Type", "application/json"));
        }
        if let Some(etag) = etag {
            headers.push(("If-Match", etag));
        }
        let mut attempt = 0;
        loop {
            let error = match self.once(method, path, &headers, body.as_deref()) {
                Ok(response) => return Ok(response),
                Err(error) => error,
            };
            attempt += 1;
            match error.downcast_ref::<GatewayError>() {
                Some(problem) if problem.retry == "safe" && attempt < ATTEMPTS => {
                    sleep(Duration::from_millis(50) * 2u32.pow(attempt));
                }
                _ => return Err(error),
            }
        }
    }

    /// Returns a document and its version.
    fn read<T: DeserializeOwned>(&self, key: &str) -> Result<(T, String)> {
        let mut response = self.send("GET", &document(key), None::<&()>, None)?;
        let etag = response.headers()["ETag"].to_str()?.to_owned();
        Ok((
            serde_json::from_reader(response.body_mut().as_reader())?,
            etag,
        ))
    }

    /// Stores a document; with `etag` only if it still has this version.
    fn write(&self, key: &str, value: &impl Serialize, etag: Option<&str>) -> Result<()> {
        self.send("PUT", &document(key), Some(value), etag)?;
        Ok(())
    }

    /// Changes a document without overwriting the changes of others; returns what was stored.
    fn update<T>(&self, key: &str, mut change: impl FnMut(&mut T) -> Result<()>) -> Result<T>
    where
        T: DeserializeOwned + Serialize,
    {
        for _ in 0..ATTEMPTS {
            let (mut value, etag) = self.read(key)?;
            change(&mut value)?;
            let Err(error) = self.write(key, &value, Some(&etag)) else {
                return Ok(value);
            };
            match error.downcast_ref::<GatewayError>() {
                Some(problem) if problem.code == "CasMismatch" => {
                    println!("{key}: {}, reading it again", problem.code);
                }
                _ => return Err(error),
            }
        }
        Err(format!("{key} is changed too often").into())
    }

    /// Runs operations in one request; iterates over their results as they arrive.
    fn batch(&self, operations: &[Value]) -> Result<impl Iterator<Item = Result<BatchResult>>> {
        let body: String = operations
            .iter()
            .map(|operation| format!("{operation}\n"))
            .collect();
        let headers = [("Content-Type", "application/x-ndjson")];
        Ok(lines(self.once("POST", "/batch", &headers, Some(&body))?))
    }

    /// Queries a view; iterates over its rows as they arrive. Parameters are JSON.
    fn rows<K, V>(
        &self,
        design: &str,
        view: &str,
        parameters: &[(&str, Value)],
    ) -> Result<impl Iterator<Item = Result<(K, V)>>>
    where
        K: DeserializeOwned,
        V: DeserializeOwned,
    {
        let query: Vec<_> = parameters
            .iter()
            .map(|(name, value)| format!("{name}={}", encode(&value.to_string())))
            .collect();
        let path = format!("/views/{design}/{view}?{}", query.join("&"));
        let response = self.once("GET", &path, &[("Accept", "application/x-ndjson")], None)?;
        Ok(lines(response).map(|line| match line? {
            Line::Row { key, value } => Ok((key, value)),
            Line::Error { error } => Err(error.into()), // a failure after the first row
        }))
    }
}

/// Iterates over the lines of an answer, each parsed.
fn lines<T: DeserializeOwned>(response: Response<Body>) -> impl Iterator<Item = Result<T>> {
    let reader = std::io::BufReader::new(response.into_body().into_reader());
    serde_json::Deserializer::from_reader(reader)
        .into_iter()
        .map(|line| Ok(line?))
}

fn encode(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// Returns the path of a document; a slash in its key is percent-encoded, too.
fn document(key: &str) -> String {
    format!("/documents/{}", encode(key))
}

fn main() -> Result<()> {
    let url = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "http://127.0.0.1:8080/v1/buckets/default".to_owned());
    let bucket = Bucket::new(url);

    let stored = Concert {
        r#type: "concert".to_owned(),
        city: "Berlin".to_owned(),
        seats: 5,
    };
    bucket.write("concert/berlin", &stored, None)?;
    let (concert, _) = bucket.read::<Concert>("concert/berlin")?;
    println!("{}: {} seats", concert.city, concert.seats);

    let sell = |seen: &mut Concert| {
        seen.seats -= 1;
        Ok(())
    };
    let concert = bucket.update("concert/berlin", |seen: &mut Concert| {
        if seen.seats == 5 {
            bucket.update("concert/berlin", sell)?; // another customer buys between our read and our write
        }
        sell(seen)
    })?;
    println!("{}: {} seats", concert.city, concert.seats);

    if let Err(error) = bucket.read::<Concert>("concert/nowhere") {
        let problem = error.downcast::<GatewayError>()?;
        println!("concert/nowhere: {}, retry {}", problem.code, problem.retry);
    }

    bucket.write("note", &json!({"text": "sold out soon"}), None)?;
    bucket.send(
        "POST",
        &(document("note") + "/lock"),
        Some(&json!({"lockTime": 1})),
        None,
    )?;
    // DocumentLocked, retry "safe", until the lock expires.
    bucket.write("note", &json!({"text": "sold out"}), None)?;
    println!("note: stored after the lock expired");

    let operations = [
        json!({"op": "set", "key": "concert/lisbon", "value": {"type": "concert", "city": "Lisbon", "seats": 8}}),
        json!({"op": "set", "key": "concert/malmö", "value": {"type": "concert", "city": "Malmö", "seats": 7}}),
        json!({"op": "add", "key": "concert/lisbon", "value": {}}),
    ];
    for result in bucket.batch(&operations)? {
        let BatchResult { key, status, error } = result?;
        let code = error
            .map(|problem| format!(" {}", problem.code))
            .unwrap_or_default();
        println!("batch: {key} {status}{code}");
    }

    let map = "function (doc, meta) { if (doc.type == 'concert') emit(doc.city, doc.seats); }";
    bucket.send(
        "PUT",
        "/designs/concerts",
        Some(&json!({"views": {"by_city": {"map": map}}})),
        None,
    )?;
    let parameters = [("startkey", json!("B")), ("stale", json!(false))];
    for row in bucket.rows::<String, u32>("concerts", "by_city", &parameters)? {
        let (city, seats) = row?;
        println!("view: {city} {seats}");
    }

    for _ in 0..2 {
        let path = document("visitors") + "/increment";
        let count = bucket
            .send("POST", &path, Some(&json!({"initial": 1})), None)?
            .body_mut()
            .read_to_string()?;
        println!("visitors: {count}");
    }
    Ok(())
}
