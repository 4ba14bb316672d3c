package tracing_test

import (
	"strings"
	"testing"

	"parley/tracing"
)

func TestAStatementHoldsNoValues(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ statement, want, summary string }{
		"strings and numbers": {
			`SELECT "c"."id" FROM "chats" AS "c" WHERE (title = 'it''s secret') AND user_id = 17 LIMIT 100`,
			`SELECT "c"."id" FROM "chats" AS "c" WHERE (title = ?) AND user_id = ? LIMIT ?`, "SELECT chats",
		},
		"names with digits": {`SELECT t1.int8 FROM t1`, `SELECT t1.int8 FROM t1`, "SELECT t1"},
		"numbers of all kinds": {
			`SELECT -1, 1.5e10, .5, 0xff, 1_000 FROM t`, `SELECT -? FROM t`, "SELECT t",
		},
		"a list is as long as one": {
			`DELETE FROM mails WHERE id IN (1, 2, 3) AND kind IN ('a','b')`, `DELETE FROM mails WHERE id IN (?) AND kind IN (?)`, "DELETE mails",
		},
		"bytes":                            {`INSERT INTO t (a, b) VALUES ('\x6869', X'6869')`, `INSERT INTO t (a, b) VALUES (?)`, "INSERT t"},
		"an update":                        {"UPDATE users SET name = 'Ann' WHERE id = 4", "UPDATE users SET name = ? WHERE id = ?", "UPDATE users"},
		"white space":                      {"\n\t SELECT\t 1\n\n FROM   t ", "SELECT ? FROM t", "SELECT t"},
		"comments":                         {"SELECT 1 -- it's one\n/* it's all */ FROM t", "SELECT ? FROM t", "SELECT t"},
		"a common table":                   {"WITH due AS (SELECT id FROM mails) UPDATE mails SET a = 1", "WITH due AS (SELECT id FROM mails) UPDATE mails SET a = ?", "WITH mails"},
		"a transaction":                    {"BEGIN", "BEGIN", "BEGIN"},
		"nothing":                          {"", "", "statement"},
		"an open string":                   {"SELECT 'abc", "SELECT", "SELECT"},
		"an open name":                     {`SELECT "abc`, "SELECT", "SELECT"},
		"a comment that only looks closed": {"SELECT /*/ 'a'", "SELECT", "SELECT"},
		"an open comment":                  {"SELECT /* abc", "SELECT", "SELECT"},
		"comments in another":              {"SELECT /* /* */ 'a' */ 'b'", "SELECT", "SELECT"},
		"escapes":                          {`SELECT E'it\'s', 'b'`, "SELECT", "SELECT"},
		"dollar quotes":                    {`SELECT $$it's$$, 'b'`, "SELECT", "SELECT"},
		"very much":                        {"SELECT " + strings.Repeat("a ", 1000), "SELECT " + strings.TrimSpace(strings.Repeat("a ", 497)), "SELECT"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := tracing.Statement(tt.statement)
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if got := tracing.Summary(got); got != tt.summary {
				t.Errorf("the summary is %q, want %q", got, tt.summary)
			}
		})
	}
}

// Whatever is in a string, it does not change what is told of the statement.
func FuzzStatement(f *testing.F) {
	for _, s := range []string{"", "'", "''", `\`, `\'`, "--", "/*", "*/", "/*/", "/**/", "$$", `"`, "\x00", "é", "?, ?", "1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		quoted := "'" + strings.ReplaceAll(s, "'", "''") + "'"
		got := tracing.Statement("SELECT a FROM t WHERE b = " + quoted + " AND c = " + quoted + " ORDER BY d")
		if want := "SELECT a FROM t WHERE b = ? AND c = ? ORDER BY d"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		if told := tracing.Statement(s); len(told) > 2*len(s)+2000 {
			t.Errorf("%d bytes are told of %d", len(told), len(s))
		}
	})
}
