package main_test

import (
	"os"
	"path/filepath"
	"testing"

	"parley/models/modelstest"
)

// bareServer does nothing but what every Go server does. Its start is what a
// start can cost at the least.
const bareServer = `package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
)

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	http.HandleFunc("/health", func(http.ResponseWriter, *http.Request) {})
	fmt.Fprintf(os.Stderr, "{\"msg\": \"listening\", \"url\": \"http://%s\"}\n", listener.Addr())
	panic(http.Serve(listener, nil))
}
`

// BenchmarkColdStart measures from the start of the process to the first 200,
// with a database that is migrated, beside a server that does nothing.
func BenchmarkColdStart(b *testing.B) {
	b.Run("bare server", func(b *testing.B) {
		source := filepath.Join(b.TempDir(), "main.go")
		if err := os.WriteFile(source, []byte(bareServer), 0o600); err != nil {
			b.Fatal(err)
		}
		file, err := build("bare", source)
		if err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			coldStart(b, file, nil)
		}
	})
	for _, dialect := range modelstest.Dialects {
		b.Run(dialect, func(b *testing.B) {
			settings := with(database(b, dialect), "PORT=0", "LOG_FORMAT=json")
			coldStart(b, parley(b), settings) // makes the keys
			for b.Loop() {
				coldStart(b, parley(b), settings)
			}
		})
	}
}

// coldStart starts a server, asks it how it is, and ends it.
func coldStart(b *testing.B, file string, environ []string) {
	b.Helper()
	s := startProgram(b, file, environ)
	nobody.ask(b, s, "GET", "/health", "").want(b, 200)
	b.StopTimer()
	client.CloseIdleConnections()
	s.kill()
	b.StartTimer()
}
