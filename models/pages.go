package models

import (
	"encoding/base64"
	"encoding/binary"
)

// A Page asks for a part of a list.
type Page struct {
	Limit  int    // rows, 1 to 200; 0 is 100
	Cursor string // where the page before ended; empty for the first one
}

const (
	defaultLimit = 100
	maxLimit     = 200
)

// A list is the first byte of its cursors, so that no other list takes them.
type list byte

const (
	chatList    list = 'c' // key: active_at in microseconds, id
	messageList list = 'm' // key: id
	auditList   list = 'a' // key: id
	userList    list = 'u' // key: id
)

// maxKey is the greatest part of a key: as a time the end of the year 9999,
// beyond which the databases read none, and far more rows than there are ids.
const maxKey = 253_402_300_799_999_999

// limit is how many rows the page may have.
func (p Page) limit() int {
	if p.Limit <= 0 {
		return defaultLimit
	}
	return min(p.Limit, maxLimit)
}

// cursor is the opaque form of a row's key in a list.
func (l list) cursor(key ...int64) string {
	b := []byte{byte(l)}
	for _, k := range key {
		b = binary.BigEndian.AppendUint64(b, uint64(k))
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

// key reads a cursor of the list whose key has n parts, the last one an id.
// It takes only what cursor makes, byte for byte: ErrInvalidCursor.
func (l list) key(cursor string, n int) ([]int64, error) {
	b, err := base64.RawURLEncoding.DecodeString(cursor)
	if err != nil || len(b) != 1+8*n || list(b[0]) != l {
		return nil, ErrInvalidCursor
	}
	key := make([]int64, n)
	for i := range key {
		key[i] = int64(binary.BigEndian.Uint64(b[1+8*i:]))
		if key[i] <= 0 || key[i] > maxKey {
			return nil, ErrInvalidCursor
		}
	}
	// The decoder skips line breaks and slack bits.
	if l.cursor(key...) != cursor {
		return nil, ErrInvalidCursor
	}
	return key, nil
}

// cut drops the row that was read beyond the page to see if there is more, and
// returns the cursor that leads there.
func cut[T any](rows []T, limit int, cursor func(T) string) ([]T, string) {
	if len(rows) <= limit {
		return rows, ""
	}
	rows = rows[:limit]
	return rows, cursor(rows[limit-1])
}
