// Sell concert tickets over HTTP with Go's net/http.
//
//	go run tickets.go [URL of a bucket]
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"log"
	"net/http"
	"net/url"
	"os"
	"time"
)

// attempts is how often a request is sent, and how often a change is tried.
const attempts = 6

// A GatewayError is an answer with a status of 400 or more; programs decide by Code and Retry.
type GatewayError struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Retry   string `json:"retry"`
}

func (e *GatewayError) Error() string { return e.Code + ": " + e.Message }

// A Bucket sends requests for one bucket; its client keeps connections open.
type Bucket struct {
	url    string
	client *http.Client
}

// A Result is a line of a batch's answer.
type Result struct {
	Key    string        `json:"key"`
	Status int           `json:"status"`
	Error  *GatewayError `json:"error"`
}

// A Row is a row of a view, or the error that ended it.
type Row struct {
	Key   string        `json:"key"`
	Value int           `json:"value"`
	Error *GatewayError `json:"error"`
}

// A Concert is a document.
type Concert struct {
	Type  string `json:"type"`
	City  string `json:"city"`
	Seats int    `json:"seats"`
}

// once sends a request; the caller closes the body of the answer.
func (b *Bucket) once(ctx context.Context, method, path string, body []byte, header http.Header) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, method, b.url+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	for name := range header {
		request.Header.Set(name, header.Get(name))
	}
	response, err := b.client.Do(request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode >= 400 {
		defer response.Body.Close()
		problem := new(GatewayError)
		if err := json.NewDecoder(response.Body).Decode(problem); err != nil {
			return nil, fmt.Errorf("status %s: %w", response.Status, err)
		}
		return nil, problem
	}
	return response, nil
}

// send sends a value as JSON and returns the whole answer. It repeats the request after a pause if the gateway
// says that nothing was changed.
func (b *Bucket) send(ctx context.Context, method, path string, value any, header http.Header) ([]byte, http.Header, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if header == nil {
		header = http.Header{}
	}
	var body []byte
	if value != nil {
		var err error
		if body, err = json.Marshal(value); err != nil {
			return nil, nil, err
		}
		header.Set("Content-Type", "application/json")
	}
	for attempt := 0; ; attempt++ {
		response, err := b.once(ctx, method, path, body, header)
		if err == nil {
			defer response.Body.Close()
			answer, err := io.ReadAll(response.Body)
			return answer, response.Header, err
		}
		var problem *GatewayError
		if !errors.As(err, &problem) || problem.Retry != "safe" || attempt+1 == attempts {
			return nil, nil, err
		}
		select {
		case <-time.After(100 * time.Millisecond << attempt):
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		}
	}
}

// document returns the path of a document; a slash in its key is percent-encoded, too.
func document(key string) string { return "/documents/" + url.PathEscape(key) }

// Read reads a document into value and returns its version.
func (b *Bucket) Read(ctx context.Context, key string, value any) (etag string, err error) {
	body, header, err := b.send(ctx, http.MethodGet, document(key), nil, nil)
	if err != nil {
		return "", err
	}
	return header.Get("ETag"), json.Unmarshal(body, value)
}

// Write stores a document; with an etag only if it still has this version.
func (b *Bucket) Write(ctx context.Context, key string, value any, etag string) error {
	header := http.Header{}
	if etag != "" {
		header.Set("If-Match", etag)
	}
	_, _, err := b.send(ctx, http.MethodPut, document(key), value, header)
	return err
}

// Update changes a document without overwriting the changes of others, and returns what was stored.
func Update[T any](ctx context.Context, b *Bucket, key string, change func(*T) error) (*T, error) {
	for range attempts {
		value := new(T)
		etag, err := b.Read(ctx, key, value)
		if err != nil {
			return nil, err
		}
		if err := change(value); err != nil {
			return nil, err
		}
		err = b.Write(ctx, key, value, etag)
		var problem *GatewayError
		switch {
		case err == nil:
			return value, nil
		case errors.As(err, &problem) && problem.Code == "CasMismatch":
			fmt.Printf("%s: %s, reading it again\n", key, problem.Code)
		default:
			return nil, err
		}
	}
	return nil, fmt.Errorf("%s is changed too often", key)
}

// lines sends a request and yields the lines of the answer as they arrive.
func lines[T any](ctx context.Context, b *Bucket, method, path string, body []byte, header http.Header) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var none T
		response, err := b.once(ctx, method, path, body, header)
		if err != nil {
			yield(none, err)
			return
		}
		defer response.Body.Close()
		for decoder := json.NewDecoder(response.Body); ; {
			var line T
			switch err := decoder.Decode(&line); {
			case errors.Is(err, io.EOF):
				return
			case err != nil:
				yield(none, err)
				return
			case !yield(line, nil):
				return
			}
		}
	}
}

// Batch runs operations in one request and yields the result of each.
func (b *Bucket) Batch(ctx context.Context, operations ...any) iter.Seq2[Result, error] {
	var body bytes.Buffer
	encoder := json.NewEncoder(&body) // ends each value with a line end
	for _, operation := range operations {
		if err := encoder.Encode(operation); err != nil {
			return func(yield func(Result, error) bool) { yield(Result{}, err) }
		}
	}
	header := http.Header{"Content-Type": {"application/x-ndjson"}}
	return lines[Result](ctx, b, http.MethodPost, "/batch", body.Bytes(), header)
}

// Rows queries a view and yields its rows. Parameters are JSON.
func (b *Bucket) Rows(ctx context.Context, design, view string, parameters url.Values) iter.Seq2[Row, error] {
	path := fmt.Sprintf("/views/%s/%s?%s", design, view, parameters.Encode())
	header := http.Header{"Accept": {"application/x-ndjson"}}
	return func(yield func(Row, error) bool) {
		for row, err := range lines[Row](ctx, b, http.MethodGet, path, nil, header) {
			if err == nil && row.Error != nil { // a failure after the first row
				err = row.Error
			}
			if !yield(row, err) || err != nil {
				return
			}
		}
	}
}

func run(ctx context.Context, bucket *Bucket) error {
	if err := bucket.Write(ctx, "concert/berlin", Concert{"concert", "Berlin", 5}, ""); err != nil {
		return err
	}
	var concert Concert
	if _, err := bucket.Read(ctx, "concert/berlin", &concert); err != nil {
		return err
	}
	fmt.Printf("%s: %d seats\n", concert.City, concert.Seats)

	sell := func(seen *Concert) error {
		seen.Seats--
		return nil
	}
	sold, err := Update(ctx, bucket, "concert/berlin", func(seen *Concert) error {
		if seen.Seats == 5 { // another customer buys between our read and our write
			if _, err := Update(ctx, bucket, "concert/berlin", sell); err != nil {
				return err
			}
		}
		return sell(seen)
	})
	if err != nil {
		return err
	}
	fmt.Printf("%s: %d seats\n", sold.City, sold.Seats)

	_, err = bucket.Read(ctx, "concert/nowhere", &concert)
	var problem *GatewayError
	if !errors.As(err, &problem) {
		return fmt.Errorf("expected an error of the gateway, got %w", err)
	}
	fmt.Printf("concert/nowhere: %s, retry %s\n", problem.Code, problem.Retry)

	if err := bucket.Write(ctx, "note", map[string]string{"text": "sold out soon"}, ""); err != nil {
		return err
	}
	lock := map[string]int{"lockTime": 1}
	if _, _, err := bucket.send(ctx, http.MethodPost, document("note")+"/lock", lock, nil); err != nil {
		return err
	}
	// DocumentLocked, retry "safe", until the lock expires.
	if err := bucket.Write(ctx, "note", map[string]string{"text": "sold out"}, ""); err != nil {
		return err
	}
	fmt.Println("note: stored after the lock expired")

	type operation struct {
		Op    string `json:"op"`
		Key   string `json:"key"`
		Value any    `json:"value"`
	}
	results := bucket.Batch(ctx,
		operation{"set", "concert/lisbon", Concert{"concert", "Lisbon", 8}},
		operation{"set", "concert/malmö", Concert{"concert", "Malmö", 7}},
		operation{"add", "concert/lisbon", struct{}{}},
	)
	for result, err := range results {
		if err != nil {
			return err
		}
		fmt.Print("batch: ", result.Key, " ", result.Status)
		if result.Error != nil {
			fmt.Print(" ", result.Error.Code)
		}
		fmt.Println()
	}

	design := map[string]any{"views": map[string]any{"by_city": map[string]string{
		"map": "function (doc, meta) { if (doc.type == 'concert') emit(doc.city, doc.seats); }",
	}}}
	if _, _, err := bucket.send(ctx, http.MethodPut, "/designs/concerts", design, nil); err != nil {
		return err
	}
	for row, err := range bucket.Rows(ctx, "concerts", "by_city", url.Values{"startkey": {`"B"`}, "stale": {"false"}}) {
		if err != nil {
			return err
		}
		fmt.Printf("view: %s %d\n", row.Key, row.Value)
	}

	for range 2 {
		count, _, err := bucket.send(ctx, http.MethodPost, document("visitors")+"/increment", map[string]int{"initial": 1}, nil)
		if err != nil {
			return err
		}
		fmt.Printf("visitors: %s\n", count)
	}
	return nil
}

func main() {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.ResponseHeaderTimeout = 10 * time.Second
	transport.MaxIdleConnsPerHost = 16
	bucket := &Bucket{"http://127.0.0.1:8080/v1/buckets/default", &http.Client{Transport: transport}}
	if len(os.Args) > 1 {
		bucket.url = os.Args[1]
	}
	if err := run(context.Background(), bucket); err != nil {
		log.Fatal(err)
	}
}
