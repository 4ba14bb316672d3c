//go:build linux

package survival_test

import (
	"bufio"
	"io"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// An event is one that a client dispatches.
type event struct{ name, id, data string }

// An eventSource reads events as the HTML standard says in "Interpreting an
// event stream": an event counts when the blank line behind it was read, and
// what is unfinished when the stream breaks is nothing.
type eventSource struct {
	in       *bufio.Reader
	lastID   string        // of the last event that counted
	retry    time.Duration // the reconnection time
	afterCR  bool
	atStart  bool
	buffered string // id of the event that is being read
}

func newEventSource(in io.Reader, lastID string) *eventSource {
	return &eventSource{in: bufio.NewReader(in), lastID: lastID, buffered: lastID, atStart: true}
}

// next returns the next event, or why there is none.
func (s *eventSource) next() (event, error) {
	var e event
	var data strings.Builder
	for {
		line, err := s.line()
		if err != nil {
			return event{}, err
		}
		if line == "" {
			s.lastID = s.buffered
			if data.Len() == 0 {
				e = event{}
				continue
			}
			e.id, e.data = s.lastID, strings.TrimSuffix(data.String(), "\n")
			return e, nil
		}
		field, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch field {
		case "event":
			e.name = value
		case "data":
			data.WriteString(value + "\n")
		case "id":
			if !strings.Contains(value, "\x00") {
				s.buffered = value
			}
		case "retry":
			if ms, err := strconv.ParseUint(value, 10, 31); err == nil && value[0] != '+' {
				s.retry = time.Duration(ms) * time.Millisecond
			}
		}
	}
}

// line returns the next line, which ends with CR LF, LF or CR.
func (s *eventSource) line() (string, error) {
	var line []byte
	for {
		c, err := s.in.ReadByte()
		if err != nil {
			return "", err
		}
		if skip := s.afterCR && c == '\n'; skip {
			s.afterCR = false
			continue
		}
		if s.afterCR = c == '\r'; s.afterCR || c == '\n' {
			text := string(line)
			if s.atStart {
				s.atStart, text = false, strings.TrimPrefix(text, "\ufeff")
			}
			return text, nil
		}
		line = append(line, c)
	}
}

// The examples of the standard, and what they leave to be guessed.
func TestEventsAreReadByTheStandard(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		stream string
		want   []event
	}{
		"lines of data are put together": {
			"data: YHOO\ndata: +2\ndata: 10\n\n", []event{{"", "", "YHOO\n+2\n10"}},
		},
		"a comment, ids, and the second of them emptied": {
			": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
			[]event{{"", "1", "first event"}, {"", "", "second event"}, {"", "", " third event"}},
		},
		"the last block is not finished": {
			"data\n\ndata\ndata\n\ndata:", []event{{"", "", ""}, {"", "", "\n"}},
		},
		"a space behind the colon is left out": {
			"data:test\n\ndata: test\n\n", []event{{"", "", "test"}, {"", "", "test"}},
		},
		"an id counts with its blank line alone": {
			"id: 1\ndata: a\n\nid: 2\ndata: b\n", []event{{"", "1", "a"}},
		},
		"three ways to end a line, and a byte order mark": {
			"\ufeffevent: x\r\ndata: a\r\n\r\ndata: b\r\rdata: c\n\n", []event{{"x", "", "a"}, {"", "", "b"}, {"", "", "c"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newEventSource(strings.NewReader(test.stream), "")
			var got []event
			for {
				e, err := s.next()
				if err != nil {
					break
				}
				got = append(got, e)
			}
			if diff := cmp.Diff(test.want, got, cmp.AllowUnexported(event{})); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
		})
	}
}
