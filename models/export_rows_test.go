package models

import (
	"github.com/uptrace/bun"
	"github.com/uptrace/bun/schema"
)

// Hook has every statement of db seen by h.
func (d *DB) Hook(h bun.QueryHook) {
	d.Watch(h)
}

// ChatCursor reads a cursor of the chat list and writes it again.
func ChatCursor(cursor string) (string, error) {
	key, err := chatList.key(cursor, 2)
	if err != nil {
		return "", err
	}
	return chatList.cursor(key...), nil
}

// IDs is a list of ids in a statement.
func IDs(ids ...int64) schema.QueryAppender { return bun.List(ids) }

// Wiped are the tables that DeleteAllUsers names.
var Wiped = wiped

// Words and OfUser are what a text is found by.
var (
	Words  = words
	OfUser = ofUser
)
