package models

import "github.com/uptrace/bun"

// Hook has every statement of db seen by h.
func (d *DB) Hook(h bun.QueryHook) {
	d.read, d.write = d.read.WithQueryHook(h), d.write.WithQueryHook(h)
}

// ChatCursor reads a cursor of the chat list and writes it again.
func ChatCursor(cursor string) (string, error) {
	key, err := chatList.key(cursor, 2)
	if err != nil {
		return "", err
	}
	return chatList.cursor(key...), nil
}
