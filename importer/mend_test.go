package importer_test

import (
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"parley/importer"
)

// The forms are those of Python's isoformat and str, of SQLAlchemy on SQLite, of
// PostgreSQL 15, of SQLite's own functions, and of JavaScript.
var timesOfAllForms = map[string]string{
	"2024-02-29 23:59:58.123456":       "2024-02-29T23:59:58.123456Z",
	"2024-02-29 23:59:58.000000":       "2024-02-29T23:59:58Z",
	"2024-02-29 23:59:58":              "2024-02-29T23:59:58Z",
	"2024-02-29T23:59:58.123456":       "2024-02-29T23:59:58.123456Z",
	"2024-02-29T23:59:58.123Z":         "2024-02-29T23:59:58.123Z",
	"2024-02-29T23:59:58+00:00":        "2024-02-29T23:59:58Z",
	"2024-02-29 23:59:58.123456+01:00": "2024-02-29T22:59:58.123456Z",
	"2024-02-29 23:59:58.5+00":         "2024-02-29T23:59:58.5Z",
	"2024-02-29 23:59:58-0330":         "2024-03-01T03:29:58Z",
	"2024-02-29 23:59:58.123456789":    "2024-02-29T23:59:58.123456Z",
	"2024-02-29 23:59":                 "2024-02-29T23:59:00Z",
	"2024-02-29":                       "2024-02-29T00:00:00Z",
	" 2024-02-29 23:59:58\n":           "2024-02-29T23:59:58Z",
	"1709251198":                       "2024-02-29T23:59:58Z",
	"1709251198.5":                     "2024-02-29T23:59:58.5Z",
	"1709251198123":                    "2024-02-29T23:59:58.123Z",
	"1709251198123456":                 "2024-02-29T23:59:58.123456Z",
	"1970-01-01 00:00:00":              "1970-01-01T00:00:00Z",
	"2024-03-02 11:00:00":              "2024-03-02T11:00:00Z", // a clock that is ahead

	"":                           "",
	"now":                        "",
	"infinity":                   "",
	"Inf":                        "",
	"NaN":                        "",
	"-1":                         "",
	"1e300":                      "",
	"1969-12-31 23:59:59":        "",
	"2023-02-29 12:00:00":        "",
	"2024-02-29 24:00:00":        "",
	"2024-03-04 12:00:00":        "",
	"10000-01-01 00:00:00":       "",
	"2024-02-29 23:59:58 Berlin": "",
}

var noon = time.Date(2024, 3, 1, 12, 0, 0, 0, time.UTC)

func TestTimesOfAllForms(t *testing.T) {
	t.Parallel()
	for text, want := range timesOfAllForms {
		got := ""
		if at, ok := importer.ParseTime(text, noon); ok {
			got = at.Format(time.RFC3339Nano)
		}
		if got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

func FuzzTimes(f *testing.F) {
	for text := range timesOfAllForms {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		at, ok := importer.ParseTime(text, noon)
		if !ok {
			return
		}
		if at.Before(time.Unix(0, 0)) || at.After(noon.AddDate(0, 0, 1)) || at.Location() != time.UTC || at.Nanosecond()%1000 != 0 {
			t.Errorf("%q: got %v", text, at)
		}
		if again, ok := importer.ParseTime(at.Format(time.RFC3339Nano), noon); !ok || !again.Equal(at) {
			t.Errorf("%q: got %v, and of that %v", text, at, again)
		}
	})
}

func FuzzTexts(f *testing.F) {
	for _, text := range []string{"", "plain", "a\x00b", "a\xff\xfeb", "\u00e9\u0301\u200d", " two\r\nlines ", strings.Repeat("long ", 100)} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		mended, changed := importer.MendText(text)
		if !utf8.ValidString(mended) || strings.Contains(mended, "\x00") || changed != (mended != text) {
			t.Errorf("%q: got %q, %v", text, mended, changed)
		}
		line, _ := importer.MendLine(text, 100)
		if !utf8.ValidString(line) || strings.ContainsFunc(line, unicode.IsControl) || utf8.RuneCountInString(line) > 100 || line != strings.TrimSpace(line) {
			t.Errorf("%q: got the line %q", text, line)
		}
	})
}
