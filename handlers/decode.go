package handlers

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"os"
	"reflect"
	"strings"
	"time"
	"unicode/utf8"
)

// maxBody is how much JSON a request may carry, in bytes, and bodyTimeout how
// long any body may take to arrive, also one that nobody reads.
const (
	maxBody     = 1 << 20
	bodyTimeout = 30 * time.Second
)

// decode reads the body of r, one JSON object, into the struct that in points
// to. What is not exactly that is a *problem; fields that in does not have are
// ignored.
func decode(r *http.Request, in any) error {
	body, err := readJSON(r)
	if err != nil {
		return err
	}
	return unmarshal(body, in)
}

// readJSON returns the body of r, which must say that it is JSON.
func readJSON(r *http.Request) ([]byte, error) {
	if !saysJSON(r.Header) {
		return nil, errNotJSON
	}
	return readBody(r)
}

// readOptionalJSON is readJSON for a route whose fields are all optional: no
// body is an empty object, whatever its type.
func readOptionalJSON(r *http.Request) ([]byte, error) {
	body, err := readBody(r)
	switch {
	case err != nil:
		return nil, err
	case len(body) == 0:
		return []byte("{}"), nil
	case !saysJSON(r.Header):
		return nil, errNotJSON
	}
	return body, nil
}

func readBody(r *http.Request) ([]byte, error) {
	if r.ContentLength > maxBody {
		return nil, errBodyTooLarge
	}
	body, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, maxBody))
	var tooLarge *http.MaxBytesError
	switch {
	case err == nil:
		return body, nil
	case errors.As(err, &tooLarge):
		return nil, errBodyTooLarge
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, errBodyTimeout
	}
	if refused, ok := errors.AsType[bodyRefused](err); ok {
		return nil, refused.error
	}
	return nil, malformed("The body could not be read to its end.")
}

// saysJSON reports whether the body is declared as plain JSON in UTF-8.
func saysJSON(h http.Header) bool {
	types := h.Values("Content-Type")
	if len(types) != 1 {
		return false
	}
	mediaType, params, err := mime.ParseMediaType(types[0])
	if err != nil || mediaType != "application/json" {
		return false
	}
	if charset, ok := params["charset"]; ok && !strings.EqualFold(charset, "utf-8") {
		return false
	}
	coding := h.Get("Content-Encoding")
	return coding == "" || strings.EqualFold(coding, "identity")
}

// unmarshal reads raw into the struct that in points to.
func unmarshal(raw []byte, in any) error {
	known := fieldNames(in)
	if err := checkJSON(raw, known); err != nil {
		return err
	}
	err := json.Unmarshal(raw, in)
	var wrong *json.UnmarshalTypeError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &wrong) && wrong.Field != "":
		detail := fmt.Sprintf("%s must be %s.", wrong.Field, kindName(wrong.Type))
		return malformed(detail, fieldError{Field: wrong.Field, Code: "invalid_type", Detail: detail})
	}
	return malformed("The body must be one JSON object.")
}

// fieldNames lists the names that the struct behind in has in JSON.
func fieldNames(in any) []string {
	t := reflect.TypeOf(in).Elem()
	names := make([]string, 0, t.NumField())
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		names = append(names, name)
	}
	return names
}

func kindName(t reflect.Type) string {
	switch t.Kind() {
	case reflect.String:
		return "a string"
	case reflect.Int64:
		return "a whole number that fits 64 bits"
	case reflect.Float64:
		return "a number"
	default:
		return "of another type"
	}
}

// maxDepth is how deep objects and arrays may be nested, the outermost object
// counted.
const maxDepth = 64

// checkJSON reports as a *problem what encoding/json would let pass: anything
// but one object, bad UTF-8 and lone surrogates, NUL, duplicate keys at any
// depth, and at the top a known key in another case or with the value null.
func checkJSON(raw []byte, known []string) error {
	switch {
	case !utf8.Valid(raw):
		return malformed("The body is not valid UTF-8.")
	case !json.Valid(raw):
		return malformed("The body is not valid JSON.")
	case bytes.TrimLeft(raw, " \t\r\n")[0] != '{':
		return malformed("The body must be one JSON object.")
	}
	w := walk{raw: raw, known: known}
	for w.at < len(raw) {
		if err := w.step(); err != nil {
			return err
		}
	}
	return nil
}

// A walk goes once over valid JSON.
type walk struct {
	raw   []byte
	at    int
	known []string
	// open holds the keys seen of each object that is open at this place, and
	// nil for an array.
	open []map[string]bool
}

// step takes the walk over the next string or the next byte.
func (w *walk) step() error {
	c := w.raw[w.at]
	if c == '"' {
		return w.text()
	}
	w.at++
	switch c {
	case '{':
		w.open = append(w.open, make(map[string]bool))
	case '[':
		w.open = append(w.open, nil)
	case '}', ']':
		w.open = w.open[:len(w.open)-1]
	}
	if len(w.open) > maxDepth {
		return malformed("The body is nested too deeply.")
	}
	return nil
}

// text takes the walk over a string and, if it is a key, over its colon.
func (w *walk) text() error {
	start := w.at
	for w.at++; w.raw[w.at] != '"'; w.at++ {
		if w.raw[w.at] != '\\' {
			continue
		}
		w.at++
		if w.raw[w.at] == 'u' {
			if err := w.escape(); err != nil {
				return err
			}
		}
	}
	w.at++
	if rest := bytes.TrimLeft(w.raw[w.at:], " \t\r\n"); len(rest) > 0 && rest[0] == ':' {
		return w.key(w.raw[start:w.at], bytes.TrimLeft(rest[1:], " \t\r\n"))
	}
	return nil
}

// escape looks at the \u escape whose u the walk stands on, and leaves the
// walk on its last digit.
func (w *walk) escape() error {
	switch r := w.hex(w.at + 1); {
	case r == 0:
		return malformed("A string holds NUL.")
	case 0xDC00 <= r && r <= 0xDFFF:
		return malformed("A string holds half a surrogate pair.")
	case 0xD800 <= r && r <= 0xDBFF:
		w.at += 6
		if w.raw[w.at-1] != '\\' || w.raw[w.at] != 'u' {
			return malformed("A string holds half a surrogate pair.")
		}
		if low := w.hex(w.at + 1); low < 0xDC00 || 0xDFFF < low {
			return malformed("A string holds half a surrogate pair.")
		}
	}
	w.at += 4
	return nil
}

// hex reads the four digits at i, which valid JSON has there.
func (w *walk) hex(i int) rune {
	var r rune
	for _, c := range w.raw[i : i+4] {
		switch {
		case c <= '9':
			c -= '0'
		default:
			c = c | 0x20 - 'a' + 10
		}
		r = r<<4 | rune(c)
	}
	return r
}

// key looks at one key, quoted, and at what follows its colon.
func (w *walk) key(quoted, value []byte) error {
	var key string
	if err := json.Unmarshal(quoted, &key); err != nil {
		return malformed("The body is not valid JSON.")
	}
	seen := w.open[len(w.open)-1]
	if seen[key] {
		return malformed("An object has the same key twice.")
	}
	seen[key] = true
	if len(w.open) > 1 {
		return nil
	}
	for _, name := range w.known {
		if !strings.EqualFold(name, key) {
			continue
		}
		if name != key {
			detail := "The key " + name + " is written in lower case."
			return malformed(detail, fieldError{Field: name, Code: "wrong_case", Detail: detail})
		}
		if value[0] == 'n' {
			detail := name + " must not be null."
			return malformed(detail, fieldError{Field: name, Code: "null", Detail: detail})
		}
	}
	return nil
}
