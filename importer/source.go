package importer

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/pgdialect"
	"github.com/uptrace/bun/dialect/sqlitedialect"
	"github.com/uptrace/bun/driver/sqliteshim"
	"github.com/uptrace/bun/schema"
)

// ErrSource says that the source cannot be opened, or is no database of which
// anything is known.
var ErrSource = errors.New("the source")

// A source is a database to bring over, in one transaction that only reads.
type source struct {
	layout

	place    string // what is brought over from here is noted under it; without a password
	postgres bool
	pool     *sql.DB
	tx       bun.Tx
	counts   [3]int64 // rows of users, chats and messages
}

// openSource opens what from names. The caller closes it.
func openSource(ctx context.Context, from string) (*source, error) {
	s, dialect, err := dial(from)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSource, err)
	}
	if err := s.look(ctx, dialect); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		s.close()
		return nil, fmt.Errorf("%w: %w", ErrSource, err)
	}
	return s, nil
}

// dial reads the URL and makes the pool, of one connection.
func dial(from string) (*source, schema.Dialect, error) {
	scheme, rest, ok := strings.Cut(from, "://")
	scheme, _, _ = strings.Cut(scheme, "+")
	switch {
	case ok && scheme == "sqlite":
		s, err := dialSQLite(rest)
		return s, sqlitedialect.New(), err
	case ok && (scheme == "postgres" || scheme == "postgresql"):
		s, err := dialPostgres("postgres://" + rest)
		return s, pgdialect.New(), err
	}
	return nil, nil, errors.New("want sqlite://path or postgres://…")
}

func dialSQLite(escaped string) (*source, error) {
	path, err := url.PathUnescape(escaped)
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(path)
	switch {
	case err != nil && strings.HasPrefix(path, "/"):
		return nil, fmt.Errorf("%w; a path behind sqlite:/// is absolute", err)
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is no file", path)
	}
	if path, err = filepath.Abs(path); err == nil {
		path, err = filepath.EvalSymlinks(path)
	}
	if err != nil {
		return nil, err
	}
	dsn := url.URL{
		Scheme: "file", OmitHost: true, Path: filepath.ToSlash(path),
		RawQuery: "mode=ro&_pragma=busy_timeout(5000)&_pragma=query_only(1)&_pragma=trusted_schema(0)",
	}
	pool, err := sql.Open(sqliteshim.ShimName, dsn.String())
	if err != nil {
		return nil, err
	}
	pool.SetMaxOpenConns(1)
	return &source{place: "sqlite://" + path, pool: pool}, nil
}

func dialPostgres(databaseURL string) (*source, error) {
	config, err := pgx.ParseConfig(databaseURL)
	if err != nil {
		return nil, err
	}
	delete(config.RuntimeParams, "pool_max_conns")
	// As models does: behind a pooler in transaction mode nothing may be prepared.
	config.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol
	config.RuntimeParams["client_encoding"] = "UTF8"
	pool := stdlib.OpenDB(*config)
	pool.SetMaxOpenConns(1)
	place := fmt.Sprintf("postgres://%s:%d/%s", config.Host, config.Port, config.Database)
	return &source{place: place, postgres: true, pool: pool}, nil
}

// look begins the transaction and finds out what there is to read.
func (s *source) look(ctx context.Context, dialect schema.Dialect) error {
	opts := &sql.TxOptions{ReadOnly: true}
	if s.postgres {
		opts.Isolation = sql.LevelRepeatableRead
	}
	tx, err := bun.NewDB(s.pool, dialect).BeginTx(ctx, opts)
	if err != nil {
		return err
	}
	s.tx = tx
	if s.postgres {
		// What is read takes as long as it takes, and is written as times are on
		// SQLite.
		_, err := tx.ExecContext(ctx, "SET LOCAL statement_timeout = 0; SET LOCAL timezone = 'UTC'; SET LOCAL datestyle = 'ISO'")
		if err != nil {
			return err
		}
	}
	columns, err := s.readColumns(ctx)
	if err != nil {
		return err
	}
	if s.layout, err = layoutOf(columns); err != nil {
		return err
	}
	for i, t := range s.all() {
		if err := tx.NewRaw("SELECT count(*) FROM ?", bun.Ident(t.name)).Scan(ctx, &s.counts[i]); err != nil {
			return err
		}
	}
	return nil
}

// refuseItself returns an error if the source is the database to bring over to.
func (r *run) refuseItself(ctx context.Context) error {
	if r.postgres != r.src.postgres {
		return nil
	}
	query := "SELECT file FROM pragma_database_list WHERE name = 'main'"
	if r.postgres {
		query = "SELECT CAST(pg_postmaster_start_time() AS TEXT) || ' ' || current_database()"
	}
	var here, there string
	if err := r.db.NewRaw(query).Scan(ctx, &here); err != nil {
		return err
	}
	if err := r.src.tx.NewRaw(query).Scan(ctx, &there); err != nil {
		return fmt.Errorf("%w: %w", ErrSource, err)
	}
	same := here == there
	if !r.postgres {
		file, err := os.Stat(here)
		other, otherErr := os.Stat(there)
		same = err == nil && otherErr == nil && os.SameFile(file, other)
	}
	if same {
		return fmt.Errorf("%w: it is the database to bring over to", ErrSource)
	}
	return nil
}

// readColumns lists the columns of all tables that may be of concern.
func (s *source) readColumns(ctx context.Context) ([]column, error) {
	query := `SELECT m.name AS "table", c.name, '' AS type FROM sqlite_schema m, pragma_table_info(m.name) c
		WHERE m.type = 'table' AND lower(m.name) IN (?) ORDER BY m.name, c.cid`
	if s.postgres {
		query = `SELECT c.relname AS "table", a.attname AS name, format_type(a.atttypid, NULL) AS type
			FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
			WHERE c.relkind IN ('r', 'p') AND pg_table_is_visible(c.oid) AND c.relname IN (?)
				AND a.attnum > 0 AND NOT a.attisdropped ORDER BY c.relname, a.attnum`
	}
	var names []string
	for _, some := range tablesOf {
		names = append(names, some...)
	}
	var columns []column
	err := s.tx.NewRaw(query, bun.List(names)).Scan(ctx, &columns)
	return columns, err
}

// largestIDs are the largest ids of users, chats and messages that can be kept.
func (s *source) largestIDs(ctx context.Context) ([3]int64, error) {
	var largest [3]int64
	for i, t := range s.all() {
		id := bun.Ident(t.columns[0])
		err := s.tx.NewRaw("SELECT COALESCE(max(?0), 0) FROM ?1 WHERE ?0 BETWEEN 1 AND ?2", id, bun.Ident(t.name), maxKept).
			Scan(ctx, &largest[i])
		if err != nil {
			return largest, err
		}
	}
	return largest, nil
}

// strays counts the messages of chats that there are not.
func (s *source) strays(ctx context.Context) (int64, error) {
	var n int64
	err := s.tx.NewRaw("SELECT count(*) FROM ?0 m WHERE NOT EXISTS (SELECT 1 FROM ?1 c WHERE ?2 = ?3)",
		bun.Ident(s.messages.name), bun.Ident(s.chats.name),
		bun.Ident("c."+s.chats.columns[chatID]), bun.Ident("m."+s.messages.columns[messageChat])).Scan(ctx, &n)
	return n, err
}

func (l layout) all() [3]table { return [3]table{l.users, l.chats, l.messages} }

func (s *source) columns() []Columns {
	return []Columns{s.users.report(), s.chats.report(), s.messages.report()}
}

// describe is one line for a person.
func (s *source) describe() string {
	kind := "SQLite"
	if s.postgres {
		kind = "PostgreSQL"
	}
	return s.service + "'s database, in " + kind
}

func (s *source) close() {
	if s.tx.Tx != nil {
		_ = s.tx.Rollback() // it has only read
	}
	_ = s.pool.Close()
}

// row is what the fields of a table hold; a column that there is not is NULL.
type row []sql.NullString

// selects are the expressions that read the fields of a table as text, in which
// the two databases differ least, and their arguments.
func (t table) selects(alias string) (expressions []string, args []any) {
	for _, name := range t.columns {
		if name == "" {
			expressions = append(expressions, "NULL")
			continue
		}
		expressions = append(expressions, "CAST(? AS TEXT)")
		args = append(args, bun.Ident(alias+"."+name))
	}
	return expressions, args
}

// read walks the rows of a query, each of which is of that width. What it hands
// over is overwritten by the next row.
func (s *source) read(ctx context.Context, width int, query string, args []any, each func(row) error) error {
	rows, err := s.tx.QueryContext(ctx, query, args...)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrSource, err)
	}
	defer rows.Close()
	values := make(row, width)
	pointers := make([]any, width)
	for i := range values {
		pointers[i] = &values[i]
	}
	for rows.Next() {
		if err := rows.Scan(pointers...); err != nil {
			return fmt.Errorf("%w: %w", ErrSource, err)
		}
		if err := each(values); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("%w: %w", ErrSource, err)
	}
	return nil
}

// id reads an id.
func (r row) id(i int) (int64, bool) {
	n, err := strconv.ParseInt(r[i].String, 10, 64)
	return n, r[i].Valid && err == nil
}

// userQuery reads all accounts, the oldest first.
func (s *source) userQuery() (string, []any) {
	expressions, args := s.users.selects("u")
	args = append(args, bun.Ident(s.users.name), bun.Ident("u."+s.users.columns[userID]))
	return "SELECT " + strings.Join(expressions, ", ") + " FROM ? u ORDER BY ?", args
}

// chatQuery reads all chats in order, each with its messages in order.
func (s *source) chatQuery() (string, []any) {
	expressions, args := s.chats.selects("c")
	contents, more := s.messages.selects("m")
	if s.service == parley {
		// The text of a reply that was being written is in its chunks. The
		// column remains an argument.
		contents[messageContent] = `CASE WHEN m.status = 'streaming'
			THEN COALESCE((SELECT string_agg(k.text, '' ORDER BY k.start) FROM reply_chunks k WHERE k.message_id = m.id), '')
			ELSE ? END`
	}
	id, key := bun.Ident("c."+s.chats.columns[chatID]), bun.Ident("m."+s.messages.columns[messageID])
	args = slices.Concat(args, more, []any{
		bun.Ident(s.chats.name), bun.Ident(s.messages.name),
		bun.Ident("m." + s.messages.columns[messageChat]), id, id, key,
	})
	return "SELECT " + strings.Join(slices.Concat(expressions, contents), ", ") +
		" FROM ? c LEFT JOIN ? m ON ? = ? ORDER BY ?, ?", args
}
