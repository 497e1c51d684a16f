// Go's net/http over HTTP/2: the conversation of tests.judges.test_http2; prints its results as JSON.
//
//	client URL [CERTIFICATE]
package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
)

const bucket = "/v1/buckets/default"

var client *http.Client
var url string

type answer struct {
	status  int
	version string
	length  int64
	text    string
}

func ask(method, path string, body io.Reader, kind string) answer {
	request, err := http.NewRequest(method, url+path, body)
	check(err)
	if kind != "" {
		request.Header.Set("Content-Type", kind)
	}
	response, err := client.Do(request)
	check(err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	check(err)
	return answer{response.StatusCode, response.Proto, response.ContentLength, string(text)}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func main() {
	url = os.Args[1]
	protocols := new(http.Protocols)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: protocols}
	if len(os.Args) > 2 {
		pem, err := os.ReadFile(os.Args[2])
		check(err)
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(pem)
		transport.TLSClientConfig = &tls.Config{RootCAs: roots}
	}
	client = &http.Client{Transport: transport}
	found := map[string]any{}
	stored := ask("PUT", bucket+"/documents/go", strings.NewReader(`{"a":1}`), "application/json")
	read := ask("GET", bucket+"/documents/go", nil, "")
	found["stored"], found["read"] = stored.status, read.text
	found["versions"] = []string{stored.version, read.version}
	statuses := make([]int, 80)
	var group sync.WaitGroup
	for number := range statuses {
		group.Add(1)
		go func() {
			defer group.Done()
			statuses[number] = ask("GET", bucket+"/documents/go", nil, "").status
		}()
	}
	group.Wait()
	found["many"] = statuses
	// A reader of which the length is not known.
	large := io.MultiReader(strings.NewReader(`"`), bytes.NewReader(bytes.Repeat([]byte("x"), 5000000)), strings.NewReader(`"`))
	status := ask("PUT", bucket+"/documents/large", large, "application/json").status
	found["large"] = []int{status, len(ask("GET", bucket+"/documents/large", nil, "").text)}
	var lines strings.Builder
	for number := range 5000 {
		fmt.Fprintf(&lines, "{\"op\":\"set\",\"key\":\"b%d\",\"value\":%d}\n", number, number)
	}
	batch := ask("POST", bucket+"/batch", strings.NewReader(lines.String()), "")
	found["batch"] = strings.Count(batch.text, `"status":200`)
	var missing struct{ Code string }
	check(json.Unmarshal([]byte(ask("GET", bucket+"/documents/missing", nil, "").text), &missing))
	found["missing"] = missing.Code
	refused := bytes.NewReader(make([]byte, 30000000))
	found["refused"] = ask("PUT", bucket+"/documents/refused", refused, "application/json").status
	found["head"] = ask("HEAD", bucket+"/documents/large", nil, "").length
	check(json.NewEncoder(os.Stdout).Encode(found))
}
