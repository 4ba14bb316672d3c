package models

import (
	"time"

	"github.com/uptrace/bun"
)

// A Pool is the connections to the database that this process has for a purpose.
type Pool struct {
	Name string // read or write on SQLite, all on PostgreSQL
	Load func() PoolLoad
}

// A PoolLoad is how busy a pool is.
type PoolLoad struct {
	Limit       int // most connections
	Used, Idle  int
	Waits       int64         // how often somebody had to wait for one
	WaitedInAll time.Duration // and for how long
}

// ConnectionPools are the pools of the database.
func (d *DB) ConnectionPools() []Pool {
	pool := func(name string, db *bun.DB) Pool {
		return Pool{Name: name, Load: func() PoolLoad {
			s := db.Stats()
			return PoolLoad{
				Limit: s.MaxOpenConnections, Used: s.InUse, Idle: s.Idle,
				Waits: s.WaitCount, WaitedInAll: s.WaitDuration,
			}
		}}
	}
	if d.read == d.write {
		return []Pool{pool("all", d.write)}
	}
	return []Pool{pool("read", d.read), pool("write", d.write)}
}

// Watch has every statement of this package told to hook too. It is to be called
// before the database is used.
func (d *DB) Watch(hook bun.QueryHook) {
	same := d.read == d.write
	d.hooks = append(d.hooks, hook)
	d.write = d.write.WithQueryHook(hook)
	if same {
		d.read = d.write
		return
	}
	d.read = d.read.WithQueryHook(hook)
}
