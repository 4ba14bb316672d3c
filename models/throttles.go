package models

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/uptrace/bun"
)

// A Limit is what may happen under a key: Quota times within Window, at once or
// spread, and again as time passes (the generic cell rate algorithm of ITU-T
// I.371). Of a key only a hash is stored, whatever its length. A key made from an
// address should be hashed by its caller with something secret: there are few
// enough addresses to try them all.
type Limit struct {
	Key    string
	Quota  int64 // below 1 there is no limit: nothing is counted, all is allowed
	Window time.Duration
}

// ErrOverLimit says that what was asked for happens too often. It comes as an
// *OverLimit.
var ErrOverLimit = errors.New("the limit is reached")

// OverLimit is the ErrOverLimit that says when there is room again.
type OverLimit struct{ Counted Counted }

func (e *OverLimit) Error() string {
	return fmt.Sprintf("%v: the next one in %v", ErrOverLimit, e.Counted.RetryAfter)
}

// Is makes an OverLimit an ErrOverLimit.
func (e *OverLimit) Is(target error) bool { return target == ErrOverLimit }

// Counted is what became of a hit, and how things stand after it.
type Counted struct {
	Key        string
	Allowed    bool          // the quota held it; if not, it has used nothing up
	Remaining  int64         // how many more the quota holds at this moment
	Reset      time.Duration // until the quota is whole again, if nothing comes until then
	RetryAfter time.Duration // until it holds one more; 0: at this moment
}

// Count counts one hit under each key, by one statement, and says of each if its
// quota held it. Of any number of callers exactly the quota gets in, and callers
// of several keys never wait for each other in a circle. The keys do not depend
// on each other: one that refuses keeps no other from counting. A key that is
// named twice is counted once, within the first of its limits. The answers come
// in the order of the limits.
func (d *DB) Count(ctx context.Context, limits []Limit) ([]Counted, error) {
	used := make(map[string]usage)
	if quotas := quotasOf(limits); len(quotas) > 0 {
		var rows []usage
		list, values := quotaList(quotas)
		if err := d.passing(ctx, &rows, list+d.hits(), values...); err != nil {
			return nil, err
		}
		for _, row := range rows {
			used[row.Key] = row
		}
	}
	counted := make([]Counted, len(limits))
	for i, limit := range limits {
		if counted[i] = (Counted{Key: limit.Key, Allowed: true}); limit.Quota >= 1 {
			counted[i] = limit.after(used[limit.quota().Key])
		}
	}
	return counted, nil
}

// passing runs one statement, and scans what it returns into rows, a slice. On SQLite
// it does not wait for the disk: if the power fails, a hit of the last moment may be
// forgotten, or its being taken back.
func (d *DB) passing(ctx context.Context, rows any, query string, args ...any) error {
	if d.dialect == Postgres {
		return classify(ctx, d.write.NewRaw(query, args...).Scan(ctx, rows))
	}
	timed, cancel := withQueryTimeout(ctx)
	defer cancel()
	return classify(ctx, d.commitSQLite(timed, undoInMemory, func(ctx context.Context, tx bun.Tx) error {
		return d.scanAll(ctx, tx, rows, query, args...)
	}))
}

// hit counts one hit, if there is a limit, in a transaction, which takes it back
// where it fails.
func (l Limit) hit(ctx context.Context, d *DB, tx bun.Tx) (Counted, error) {
	if l.Quota < 1 {
		return Counted{}, nil
	}
	var row usage
	list, values := quotaList([]quota{l.quota()})
	if err := d.scan(ctx, tx, &row, list+d.hits(), values...); err != nil {
		return Counted{}, err
	}
	return l.admits(row)
}

// admits is how the limit stands with a hit counted; an *OverLimit if that was
// refused.
func (l Limit) admits(row usage) (Counted, error) {
	counted := l.after(row)
	if !counted.Allowed {
		return Counted{}, &OverLimit{counted}
	}
	return counted, nil
}

// hits is the statement that counts one hit under each key of a list, quota (key,
// emission, burst). A key that is not there has its whole quota. On PostgreSQL it is
// done by a function, for which a row is locked before it is looked at.
func (d *DB) hits() string {
	if d.dialect == Postgres {
		return "SELECT key, hit.* FROM (SELECT * FROM quota ORDER BY key) AS quota, count_hit(key, emission, burst) AS hit"
	}
	micros := d.micros()
	return `INSERT INTO throttles AS t (key, tat, allowed)
		SELECT key, ` + micros + ` + emission, TRUE FROM quota WHERE TRUE
		ON CONFLICT (key) DO UPDATE SET (tat, allowed) = (
			SELECT CASE WHEN next <= now + burst THEN next ELSE t.tat END, next <= now + burst
			FROM (SELECT now, burst, CASE WHEN t.tat > now THEN t.tat ELSE now END + emission AS next
				FROM (SELECT ` + micros + ` AS now, emission, burst FROM quota WHERE quota.key = t.key) AS hit) AS arrival)
		RETURNING key, tat, allowed, ` + micros + ` AS now`
}

// Refund takes back one hit under each key, by one statement: of those that
// Count has allowed.
func (d *DB) Refund(ctx context.Context, limits []Limit) error {
	quotas := quotasOf(limits)
	if len(quotas) == 0 {
		return nil
	}
	// An INSERT too, to lock the rows in the same order. A row that it adds is a
	// quota that is whole.
	var keys []string
	list, values := quotaList(quotas)
	return d.passing(ctx, &keys, list+`
		INSERT INTO throttles AS t (key, tat, allowed)
		SELECT key, `+d.micros()+`, TRUE FROM quota WHERE TRUE ORDER BY key
		ON CONFLICT (key) DO UPDATE SET tat = t.tat - (SELECT emission FROM quota WHERE quota.key = t.key)
		RETURNING key`, values...)
}

// A quota is a limit as the statements take it, in microseconds: what one hit
// uses up, and how much of it there is.
type quota struct {
	Key      string
	Emission int64
	Burst    int64
}

// maxQuota is more than comes within any window, and keeps sums within an int64.
const maxQuota = 1 << 40

func (l Limit) quota() quota {
	hits := min(l.Quota, maxQuota)
	emission := max(1, l.Window.Microseconds()/hits)
	// A multiple of the emission, so that rounding costs no hit and gives none.
	return quota{throttleKey(l.Key), emission, emission * hits}
}

// quotasOf returns each key once, in order: PostgreSQL lets one statement change
// a row once.
func quotasOf(limits []Limit) []quota {
	var quotas []quota
	for _, limit := range limits {
		if limit.Quota >= 1 {
			quotas = append(quotas, limit.quota())
		}
	}
	slices.SortStableFunc(quotas, func(a, b quota) int { return strings.Compare(a.Key, b.Key) })
	return slices.CompactFunc(quotas, func(a, b quota) bool { return a.Key == b.Key })
}

// quotaList is how a statement begins that is about these quotas, and its values. As
// a table of its own the list would cost SQLite as much as all the rest.
func quotaList(quotas []quota) (list string, values []any) {
	for _, q := range quotas {
		values = append(values, q.Key, q.Emission, q.Burst)
	}
	rows := strings.Repeat(", (?, ?, ?)", len(quotas))
	return "WITH quota (key, emission, burst) AS NOT MATERIALIZED (VALUES " + rows[2:] + ") ", values
}

// throttleKey is the stored form of a key.
func throttleKey(key string) string {
	sum := sha256.Sum256([]byte(key))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// usage is a stored key, at the time Now.
type usage struct {
	Key     string
	Tat     int64
	Allowed bool
	Now     int64
}

// after is how the limit stands with its key counted.
func (l Limit) after(u usage) Counted {
	q := l.quota()
	taken := max(0, u.Tat-u.Now)
	left := q.Burst - taken
	return Counted{
		Key:        l.Key,
		Allowed:    u.Allowed,
		Remaining:  max(0, left/q.Emission),
		Reset:      time.Duration(taken) * time.Microsecond,
		RetryAfter: time.Duration(max(0, q.Emission-left)) * time.Microsecond,
	}
}

// micros is the present in microseconds since 1970, by the clock of the database
// and read where it stands in a statement.
func (d *DB) micros() string {
	if d.dialect == Postgres {
		return "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
	}
	return "(CAST(round(unixepoch('subsec') * 1000) AS INTEGER) * 1000)"
}

// purgeThrottles deletes quotas that were whole at ?0. It waits for nobody: rows
// that are being counted are left for the next time, since whoever counts them
// may wait for rows that this one holds.
func (d *DB) purgeThrottles() string {
	if d.dialect == Postgres {
		return `DELETE FROM throttles WHERE key IN (SELECT key FROM throttles WHERE tat < ?0 FOR UPDATE SKIP LOCKED)`
	}
	return "DELETE FROM throttles WHERE tat < ?0"
}
