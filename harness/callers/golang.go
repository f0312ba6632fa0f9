// Go's net/http as a caller: BASE CA sequence|connections. See __init__.py.
package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"
)

var base string
var client *http.Client

type unsized struct{ io.Reader } // a body without a length is sent chunked

func ask(method, path string, body io.Reader, fields ...string) (*http.Response, string, error) {
	request, err := http.NewRequest(method, base+path, body)
	if err != nil {
		return nil, "", err
	}
	for i := 0; i < len(fields); i += 2 {
		request.Header.Set(fields[i], fields[i+1])
	}
	answer, err := client.Do(request)
	if err != nil {
		return nil, "", err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	return answer, string(text), err
}

func expect(name string, status int, framing, body string, answer *http.Response, text string, err error) {
	switch {
	case err != nil:
		fmt.Println(name, "failed", err)
	case answer.StatusCode != status || text != body || answer.Header.Get("X-Framing") != framing:
		fmt.Println(name, "failed", answer.StatusCode, len(text), answer.Header.Get("X-Framing"))
	default:
		fmt.Println(name, "ok")
	}
}

func main() {
	base = os.Args[1]
	pem, _ := os.ReadFile(os.Args[2])
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	client = &http.Client{Transport: &http.Transport{
		TLSClientConfig:       &tls.Config{RootCAs: pool},
		ExpectContinueTimeout: 5 * time.Second,
		MaxIdleConnsPerHost:   8,
	}}
	if os.Args[3] == "connections" {
		var all sync.WaitGroup
		failed := make(chan error, 8)
		for range 8 {
			all.Go(func() {
				answer, text, err := ask("GET", "/slow", nil)
				if err == nil && (answer.StatusCode != 200 || text != "hello") {
					err = fmt.Errorf("%d %s", answer.StatusCode, text)
				}
				if err != nil {
					failed <- err
				}
			})
		}
		all.Wait()
		if len(failed) > 0 {
			fmt.Println("connections failed", <-failed)
		} else {
			fmt.Println("connections ok")
		}
		return
	}
	large := strings.Repeat("0123456789abcdef", 65536)
	answer, text, err := ask("GET", "/", nil)
	expect("get", 200, "none", "hello", answer, text, err)
	answer, text, err = ask("HEAD", "/", nil)
	if err == nil && answer.ContentLength != 5 {
		err = fmt.Errorf("length %d", answer.ContentLength)
	}
	expect("head", 200, "none", "", answer, text, err)
	answer, text, err = ask("GET", "/empty", nil)
	expect("204", 204, "none", "", answer, text, err)
	answer, text, err = ask("GET", "/chunked", nil)
	expect("chunked-answer", 200, "none", "parts of it", answer, text, err)
	answer, text, err = ask("GET", "/large", nil)
	expect("large", 200, "none", large, answer, text, err)
	answer, text, err = ask("POST", "/echo", bytes.NewReader([]byte(large)))
	expect("post", 200, "length", large, answer, text, err)
	answer, text, err = ask("POST", "/echo", unsized{strings.NewReader(large)})
	expect("post-chunked", 200, "chunked", large, answer, text, err)
	begun := time.Now()
	answer, text, err = ask("POST", "/echo", strings.NewReader("waits"), "Expect", "100-continue")
	if err == nil && time.Since(begun) > 4*time.Second {
		err = fmt.Errorf("no 100")
	}
	expect("expect", 200, "length", "waits", answer, text, err)
}
