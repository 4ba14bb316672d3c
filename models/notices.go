package models

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// channel is the one that all replicas listen to.
const channel = "parley"

// maxNotice is the longest payload of a notification in bytes: PostgreSQL's
// limit is 8,000.
const maxNotice = 7900

// Notify wakes those who Listen, on every replica, with these notices. They
// may get lost: what matters is a row, and who waits for it looks anyway, only
// later. It is a statement of its own, after the transaction that it tells of,
// so that no transaction waits for the queue of notifications. On SQLite there
// is nobody else to tell.
func (d *DB) Notify(ctx context.Context, notices ...string) error {
	if d.dialect != Postgres {
		return nil
	}
	for len(notices) > 0 {
		n, size := 0, 0
		for n < len(notices) && size+len(notices[n]) < maxNotice {
			size += len(notices[n]) + 1
			n++
		}
		if n == 0 {
			return fmt.Errorf("models: a notice of %d bytes is too long", len(notices[0]))
		}
		if _, err := d.write.NewRaw("SELECT pg_notify(?, ?)", channel, strings.Join(notices[:n], "\n")).Exec(ctx); err != nil {
			return classify(ctx, err)
		}
		notices = notices[n:]
	}
	return nil
}

// ListenAt has Listen connect to that postgres:// URL instead of the one that
// was opened, which may go through a pooler. A malformed URL is an error that
// does not repeat it. On SQLite it does nothing.
func (d *DB) ListenAt(databaseURL string) error {
	if d.dialect != Postgres {
		return nil
	}
	config, _, err := postgresConfig(databaseURL)
	if err == nil {
		d.listen = config
	}
	return err
}

// Listen calls each for every notice, until ctx ends or the connection is
// lost, which is an error. ready is called once it listens: what happened
// before may have been missed. It holds a connection of its own, that no
// pooler in transaction mode may stand before. On SQLite it waits for ctx.
func (d *DB) Listen(ctx context.Context, ready func(), each func(notice string)) error {
	if d.dialect != Postgres {
		ready()
		<-ctx.Done()
		return nil
	}
	conn, err := pgx.ConnectConfig(ctx, d.listen)
	if err != nil {
		return classify(ctx, err)
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // it is given up anyway
	if _, err := conn.Exec(ctx, "LISTEN "+channel); err != nil {
		return classify(ctx, err)
	}
	ready()
	for {
		n, err := conn.WaitForNotification(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return classify(ctx, err)
		}
		for notice := range strings.SplitSeq(n.Payload, "\n") {
			each(notice)
		}
	}
}
