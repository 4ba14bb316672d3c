package models

import (
	"strings"

	"github.com/uptrace/bun/dialect/pgdialect"
	"github.com/uptrace/bun/dialect/sqlitedialect"
)

// noSuchText stands in a statement where a text with a NUL should have been.
// Neither database has a function of that name, so the statement fails before
// it does anything and classify can tell why. bun would leave the statement
// malformed there, which looks like a fault of ours.
const noSuchText = "text_with_nul"

func isTextWithNUL(err error) bool {
	if state, ok := sqlState(err); ok && state != "42883" { // undefined_function
		return false
	}
	return strings.Contains(err.Error(), "function "+noSuchText+"()") ||
		strings.Contains(err.Error(), "no such function: "+noSuchText)
}

type sqliteDialect struct{ *sqlitedialect.Dialect }

func (d sqliteDialect) AppendString(b []byte, s string) []byte {
	if strings.IndexByte(s, 0) >= 0 {
		return append(b, noSuchText+"()"...)
	}
	return d.Dialect.AppendString(b, s)
}

type postgresDialect struct{ *pgdialect.Dialect }

func (d postgresDialect) AppendString(b []byte, s string) []byte {
	if strings.IndexByte(s, 0) >= 0 {
		return append(b, noSuchText+"()"...)
	}
	return d.Dialect.AppendString(b, s)
}
