package models

import (
	"context"
	"encoding/json"
	"fmt"
	"time"
)

// A Count is how many there are of something.
type Count struct {
	N         int64
	Estimated bool // by PostgreSQL, from a sample and the size of the table
}

// SystemMetrics is how much there is, and how much of it is used.
type SystemMetrics struct {
	Users, Chats, Messages Count
	Active                 ActiveUsers
	Running                int64        // replies that are being written
	Days                   []UsageTotal // of the last 30 (UTC), those on which something was used, in order
}

// ActiveUsers are those for whom replies were made today (UTC), and within so many
// days of which today is the last.
type ActiveUsers struct{ Day, Week, Month int64 }

// SystemMetrics counts. No figure takes longer because there are more messages:
// their number is the sum of what is kept with the chats. PostgreSQL estimates
// what is more than 100,000.
func (d *DB) SystemMetrics(ctx context.Context) (SystemMetrics, error) {
	ctx, cancel := withQueryTimeout(ctx)
	defer cancel()
	var m SystemMetrics
	for _, read := range []func(context.Context, *SystemMetrics) error{d.countUsers, d.countChats, d.countUsed} {
		if err := read(ctx, &m); err != nil {
			return SystemMetrics{}, classify(ctx, err)
		}
	}
	return m, nil
}

// exactCounts is how many rows PostgreSQL counts one by one.
const exactCounts = 100_000

// upTo is how many rows are read to count them.
func (d *DB) upTo() int64 {
	if d.dialect == Postgres {
		return exactCounts + 1
	}
	return -1 // all
}

func (d *DB) countUsers(ctx context.Context, m *SystemMetrics) error {
	err := d.read.NewRaw("SELECT count(*) FROM (SELECT 1 FROM users LIMIT ?) AS counted", d.upTo()).Scan(ctx, &m.Users.N)
	if err != nil || m.Users.N != d.upTo() {
		return err
	}
	m.Users, err = d.estimate(ctx, "users")
	return err
}

// countChats counts chats, and with them messages.
func (d *DB) countChats(ctx context.Context, m *SystemMetrics) error {
	err := d.read.NewRaw(`SELECT count(*), CAST(COALESCE(sum(message_count), 0) AS bigint)
		FROM (SELECT message_count FROM chats LIMIT ?) AS counted`, d.upTo()).Scan(ctx, &m.Chats.N, &m.Messages.N)
	if err != nil || m.Chats.N != d.upTo() {
		return err
	}
	if m.Chats, err = d.estimate(ctx, "chats"); err != nil {
		return err
	}
	m.Messages, err = d.estimate(ctx, "messages")
	return err
}

// estimate is how many rows PostgreSQL's planner takes a table to have, of which
// it reads no more than the size.
func (d *DB) estimate(ctx context.Context, table string) (Count, error) {
	var answer string
	if err := d.read.NewRaw("EXPLAIN (FORMAT JSON) SELECT FROM "+table).Scan(ctx, &answer); err != nil {
		return Count{}, err
	}
	var plans []struct {
		Plan struct {
			Rows float64 `json:"Plan Rows"`
		}
	}
	if err := json.Unmarshal([]byte(answer), &plans); err != nil {
		return Count{}, fmt.Errorf("plan of a count: %w", err)
	}
	if len(plans) != 1 {
		return Count{}, fmt.Errorf("plan of a count: %s", answer)
	}
	return Count{N: int64(plans[0].Plan.Rows), Estimated: true}, nil
}

// countUsed reads what is used: by the index on the days.
func (d *DB) countUsed(ctx context.Context, m *SystemMetrics) error {
	today := d.now()
	since := func(days int) string { return Day(today.AddDate(0, 0, 1-days)) }
	err := d.read.NewRaw(`SELECT count(DISTINCT CASE WHEN day >= ?0 THEN user_id END),
			count(DISTINCT CASE WHEN day >= ?1 THEN user_id END), count(DISTINCT user_id)
		FROM usage_days WHERE day >= ?2`, since(1), since(7), since(30)).Scan(ctx, &m.Active.Day, &m.Active.Week, &m.Active.Month)
	if err != nil {
		return err
	}
	if err := d.read.NewRaw("SELECT count(*) FROM replies").Scan(ctx, &m.Running); err != nil {
		return err
	}
	m.Days, err = d.UsageByDay(ctx, since(30), Day(today.Add(time.Hour)))
	return err
}
