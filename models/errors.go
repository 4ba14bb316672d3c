package models

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// What methods of DB report. All are met with errors.Is: what is returned may
// wrap them with detail that is meant for a log.
var (
	// ErrNotFound says that there is no such row.
	ErrNotFound = errors.New("not found")
	// ErrForbidden says that the row exists and belongs to somebody else.
	ErrForbidden = errors.New("belongs to somebody else")
	// ErrUserExists says that the address has an account.
	ErrUserExists = errors.New("user exists")
	// ErrReplyInProgress says that a reply of this chat is being written. It comes
	// as a *ReplyInProgress.
	ErrReplyInProgress = errors.New("a reply is in progress")
	// ErrKeyReused says that the idempotency key was used with another body.
	ErrKeyReused = errors.New("idempotency key was used with another body")
	// ErrUnavailable says that the database cannot be asked, or could not finish
	// in time. The same call may work later. After a lost connection it is not
	// known if a write has happened.
	ErrUnavailable = errors.New("database unavailable")
	// ErrStaleOwner says that the reply has another owner.
	ErrStaleOwner = errors.New("reply has another owner")
	// ErrInvalidCursor says that the page cursor is not one of ours.
	ErrInvalidCursor = errors.New("invalid cursor")
	// ErrInvalidText says that a text holds a NUL, which no column can store.
	// Nothing was written. It is reported by whatever statement got that text.
	ErrInvalidText = errors.New("text holds a NUL character")
)

// ReplyInProgress is the ErrReplyInProgress that names the reply.
type ReplyInProgress struct {
	MessageID int64 // the assistant message that is being written
}

func (e *ReplyInProgress) Error() string {
	return fmt.Sprintf("%v: message %d", ErrReplyInProgress, e.MessageID)
}

// Is makes a ReplyInProgress an ErrReplyInProgress.
func (e *ReplyInProgress) Is(target error) bool { return target == ErrReplyInProgress }

// classify turns what a driver reports into the errors above; every error that
// leaves an exported method has gone through it (inTx does so itself). ctx is
// the caller's: if the caller gave up, the answer is context.Canceled, whatever
// form the broken-off statement took. Errors that did not come from the
// database, and faults of the SQL itself, stay as they are.
func classify(ctx context.Context, err error) error {
	switch {
	case err == nil, errors.Is(err, ErrUnavailable), errors.Is(err, ErrInvalidText):
		return err
	case errors.Is(err, sql.ErrNoRows), raisedNoData(err):
		return ErrNotFound
	case isTextWithNUL(err):
		return ErrInvalidText
	case errors.Is(ctx.Err(), context.Canceled) && (isUnavailable(err) || errors.Is(err, context.Canceled)):
		return fmt.Errorf("%w: %w", context.Canceled, err)
	case isUnavailable(err):
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return err
}

// isUnavailable tells trouble with the storage from faults of a statement.
func isUnavailable(err error) bool {
	if state, ok := sqlState(err); ok {
		return unavailableState(state)
	}
	if code, ok := sqliteCode(err); ok {
		// A file that is not migrated has no code of its own.
		return unavailableCode(code) || strings.Contains(err.Error(), "no such table: ")
	}
	for _, lost := range []error{
		context.DeadlineExceeded, os.ErrDeadlineExceeded, driver.ErrBadConn,
		sql.ErrConnDone, sql.ErrTxDone, io.EOF, io.ErrUnexpectedEOF, net.ErrClosed,
	} {
		if errors.Is(err, lost) {
			return true
		}
	}
	var connect *pgconn.ConnectError
	var network net.Error
	if errors.As(err, &connect) || errors.As(err, &network) || pgconn.Timeout(err) || pgconn.SafeToRetry(err) {
		return true
	}
	// database/sql and pgx keep these two to themselves.
	text := err.Error()
	return strings.Contains(text, "sql: database is closed") || strings.Contains(text, "conn closed")
}

// retryable says that a transaction lost against another one, was rolled back,
// and may well succeed when it is run again.
func retryable(err error) bool {
	if state, ok := sqlState(err); ok {
		return state == "40001" || state == "40P01" // serialization_failure, deadlock_detected
	}
	return false
}

// lockNotAvailable is PostgreSQL's code for what somebody else holds.
const lockNotAvailable = "55P03"

// sqlState is PostgreSQL's code for err, if the server reported it.
func sqlState(err error) (string, bool) {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return "", false
	}
	return pg.Code, true
}

// raisedNoData says that a function of ours has found nothing.
func raisedNoData(err error) bool {
	state, _ := sqlState(err)
	return state == "P0002" // no_data_found
}

// unavailableState sorts the codes of PostgreSQL's appendix "Error Codes".
func unavailableState(state string) bool {
	switch state {
	case "25006", // read_only_sql_transaction: a standby
		"25P03", "25P04", // idle_in_transaction_session_timeout, transaction_timeout
		"3D000",          // invalid_catalog_name: the database is not there
		"42P01", "42883", // undefined_table, undefined_function: it is not migrated
		"40001", "40003", "40P01", // lost against other transactions, again and again
		lockNotAvailable:
		return true
	}
	if len(state) != 5 {
		return false
	}
	switch state[:2] {
	case "08", // connection_exception, poolers too
		"28", // invalid_authorization_specification: cannot log in
		"53", // insufficient_resources: too many connections, memory, disk
		"57", // operator_intervention: shutting down, starting up, statement timeout
		"58", // system_error: I/O
		"XX": // internal_error: corruption
		return true
	}
	return false
}

// sqliteCode is SQLite's extended result code for err.
func sqliteCode(err error) (int, bool) {
	var coded interface {
		error
		Code() int
	}
	if !errors.As(err, &coded) {
		return 0, false
	}
	return coded.Code(), true
}

// unavailableCode sorts the primary codes of https://www.sqlite.org/rescode.html.
func unavailableCode(code int) bool {
	switch code & 0xff {
	case 5, 6, // BUSY, LOCKED
		7, 8, 9, // NOMEM, READONLY, INTERRUPT
		10, 11, 13, 14, 15, // IOERR, CORRUPT, FULL, CANTOPEN, PROTOCOL
		22, 23, 26: // NOLFS, AUTH, NOTADB
		return true
	}
	return false
}

// uniqueViolation says if err means that a row with the same key exists, and
// names the constraint as PostgreSQL does, for both dialects:
// "users_email_key" for a UNIQUE column, "idempotency_keys_pkey" for a primary
// key.
func uniqueViolation(err error) (constraint string, ok bool) {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.ConstraintName, pg.Code == "23505"
	}
	const uniqueKey, primaryKey = 2067, 1555 // SQLITE_CONSTRAINT_UNIQUE, _PRIMARYKEY
	code, _ := sqliteCode(err)
	if code != uniqueKey && code != primaryKey {
		return "", false
	}
	// "constraint failed: UNIQUE constraint failed: users.email (2067)"
	_, columns, _ := strings.Cut(err.Error(), "UNIQUE constraint failed: ")
	columns, _, _ = strings.Cut(columns, " (")
	table, _, _ := strings.Cut(columns, ".")
	if code == primaryKey {
		return table + "_pkey", true
	}
	name := table
	for column := range strings.SplitSeq(columns, ", ") {
		name += "_" + strings.TrimPrefix(column, table+".")
	}
	return name + "_key", true
}

// foreignKeyViolation says if err means that a row which is referred to does
// not exist. SQLite does not tell which constraint it was.
func foreignKeyViolation(err error) bool {
	if state, ok := sqlState(err); ok {
		return state == "23503"
	}
	code, _ := sqliteCode(err)
	return code == 787 // SQLITE_CONSTRAINT_FOREIGNKEY
}
