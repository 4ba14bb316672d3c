package importer

import (
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"parley/models"
)

// What Parley's own API takes.
const (
	maxUserName = 100
	maxTitle    = 200
)

const replacement = string(utf8.RuneError)

// mendText makes a text one that can be stored and sent: in UTF-8, without NUL.
// What it cannot keep it marks by U+FFFD.
func mendText(s string) (mended string, changed bool) {
	if utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 {
		return s, false
	}
	return strings.ReplaceAll(strings.ToValidUTF8(s, replacement), "\x00", replacement), true
}

// mendLine makes a text a line of at most limit characters.
func mendLine(s string, limit int) (mended string, changed bool) {
	line, changed := mendText(s)
	spaced := strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, line)
	mended = strings.TrimSpace(spaced)
	if runes := []rune(mended); len(runes) > limit {
		return strings.TrimSpace(string(runes[:limit-1])) + "…", true
	}
	return mended, changed || spaced != line
}

// timeForms are those in which SQLite and PostgreSQL, Python and Go write a time,
// with a space for the T. Without a zone it is UTC, as both services wrote it.
// Reading takes a fraction of a second behind any of them.
var timeForms = []string{
	"2006-01-02 15:04:05Z07:00",
	"2006-01-02 15:04:05-07",
	"2006-01-02 15:04:05-0700",
	"2006-01-02 15:04:05",
	"2006-01-02 15:04",
	"2006-01-02",
}

// The units in which a number may count the time since 1970: what is less than
// the first is in seconds, less than the second in milliseconds. Seconds reach
// the first in the year 5138.
const (
	fewestMillis = 1e11
	fewestMicros = 1e14
)

// clockSkew is how far ahead of this machine's clock a time may be.
const clockSkew = 24 * time.Hour

// parseTime reads a time, which must be one of the years since 1970 and not of
// the future.
func parseTime(s string, now time.Time) (time.Time, bool) {
	s = strings.TrimSpace(s)
	t, ok := parseNumber(s)
	if len(s) > 10 && (s[10] == 'T' || s[10] == 't') {
		s = s[:10] + " " + s[11:]
	}
	for _, form := range timeForms {
		if ok {
			break
		}
		var err error
		t, err = time.Parse(form, s)
		ok = err == nil
	}
	t = t.UTC().Truncate(time.Microsecond)
	if !ok || t.Before(time.Unix(0, 0)) || t.After(now.Add(clockSkew)) {
		return time.Time{}, false
	}
	return t, true
}

func parseNumber(s string) (time.Time, bool) {
	n, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsNaN(n) || n < 0 || n >= math.MaxInt64 {
		return time.Time{}, false
	}
	switch {
	case n < fewestMillis:
		whole, part := math.Modf(n)
		return time.Unix(int64(whole), int64(part*1e9)), true
	case n < fewestMicros:
		return time.UnixMilli(int64(n)), true
	}
	return time.UnixMicro(int64(n)), true
}

// parseRole returns the role of a message here, "" if it has none.
func parseRole(s string) string {
	switch strings.ToLower(strings.TrimSpace(s)) {
	case "user":
		return models.RoleUser
	case "assistant", "ai", "bot":
		return models.RoleAssistant
	}
	return ""
}

// isSystem says that a message is the service's own, which was never shown.
func isSystem(role string) bool { return strings.EqualFold(strings.TrimSpace(role), "system") }

// parseBool reads a truth value as the databases write one.
func parseBool(s string) bool {
	switch strings.ToLower(strings.TrimSpace(s)) {
	case "1", "t", "true", "y", "yes":
		return true
	}
	return false
}

// parseCount reads a number that is not negative; nil if it is none.
func parseCount(s string) *int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 {
		return nil
	}
	return &n
}
