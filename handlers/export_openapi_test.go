package handlers

import (
	"net/http"
	"regexp"
)

// An Operation is a row of the route table as OpenAPI has it.
type Operation struct {
	Method, Path   string // such as GET, /api/v1/chats/{id}
	Keyed, Limited bool   // takes an Idempotency-Key; says what its limit is
}

var parameter = regexp.MustCompile(`:([a-z]+)`)

// Operations lists what the handler made by New answers, HEAD and OPTIONS aside.
// The metrics, which stand in no row, are among them.
func Operations(api http.Handler) []Operation {
	out := []Operation{{Method: http.MethodGet, Path: scrapePath}}
	for _, row := range api.(*server).routes {
		replacement := "{$1}"
		if row.only != "" {
			replacement = row.only
		}
		out = append(out, Operation{
			Method: row.method, Path: parameter.ReplaceAllString(row.path, replacement),
			Keyed: row.keyed != "", Limited: row.limited != "",
		})
	}
	return out
}
