//go:build !unix

package modelstest

import "testing"

const template = ""

type server struct{}

func cluster(tb testing.TB) *server {
	tb.Helper()
	tb.Skip("modelstest: PostgreSQL is started on Unix only")
	return nil
}

func (*server) database(testing.TB, string) string { return "" }

func pooled(testing.TB, string) string { return "" }
