package handlers_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// watch holds the answer to r against the description, its body as the test reads
// it: a stream event by event. A request that was granted must be described too.
func watch(t *testing.T, r *http.Request, res *http.Response) {
	t.Helper()
	d, err := description()
	if err != nil {
		t.Fatalf("openapi.yaml: %v", err)
	}
	complain := func(err error) {
		t.Helper()
		if err != nil {
			t.Errorf("openapi.yaml: %s %s, answered with %d: %v", r.Method, brief(r.URL.Path), res.StatusCode, err)
		}
	}
	if res.StatusCode < 300 && r.Method != http.MethodOptions {
		var sent []byte // nil: it cannot be read again
		if r.GetBody != nil {
			body, err := r.GetBody()
			if err != nil {
				t.Fatal(err)
			}
			if sent, err = io.ReadAll(body); err != nil {
				t.Fatal(err)
			}
		}
		complain(d.request(r, sent))
	}
	want, err := d.head(r.Method, r.URL.Path, res.StatusCode, res.Header)
	complain(err)
	if err == nil {
		res.Body = &watched{ReadCloser: res.Body, document: d, want: want, complain: complain}
	}
}

// watched is the body of an answer, judged as it is read.
type watched struct {
	io.ReadCloser
	document *document
	want     expectation
	complain func(error)

	mu   sync.Mutex
	seen []byte // not judged yet
	over bool
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.ReadCloser.Read(p)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen = append(w.seen, p[:n]...)
	switch {
	case w.over:
	case w.want.mediaType == "text/event-stream":
		w.judgeEvents()
	case errors.Is(err, io.EOF):
		w.over = true
		w.complain(w.judgeWhole())
	}
	return n, err
}

// judgeEvents judges the events that have arrived whole.
func (w *watched) judgeEvents() {
	for {
		block, rest, whole := bytes.Cut(w.seen, []byte("\n\n"))
		if !whole {
			return
		}
		w.seen = rest
		if err := w.document.event(w.want.pointer, string(block)); err != nil {
			w.over = true // one complaint is enough
			w.complain(fmt.Errorf("%w in the event:\n%s", err, block))
			return
		}
	}
}

// judgeWhole judges a body that has arrived whole.
func (w *watched) judgeWhole() error {
	switch {
	case w.want.mediaType == "" && len(w.seen) > 0:
		return fmt.Errorf("a body, and none is described: %s", w.seen)
	case w.want.mediaType == "":
		return nil
	case strings.HasSuffix(w.want.mediaType, "json"):
		return w.document.validateJSON(w.want.pointer, w.seen)
	}
	return nil
}

// event judges what stands between two empty lines of an event stream (HTML
// Living Standard, section 9.2.6), whose schema pointer leads to. Comments and a
// retry field alone are no event.
func (d *document) event(pointer, block string) error {
	event := make(map[string]any)
	for line := range strings.SplitSeq(block, "\n") {
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case name == "":
		case event[name] != nil:
			return fmt.Errorf("the field %s stands there twice", name)
		case name == "retry":
			ms, err := strconv.Atoi(value)
			if err != nil {
				return err
			}
			event[name] = ms
		default:
			event[name] = value
		}
	}
	if _, only := event["retry"]; len(event) == 0 || only && len(event) == 1 {
		return nil
	}
	_, pointer = d.at(pointer)
	pointer += "/contentSchema/items"
	if err := d.validate(pointer, event); err != nil {
		return err
	}
	_, pointer = d.at(pointer)
	// What data says depends on the event.
	kinds, _ := d.at(pointer + "/oneOf")
	list, _ := kinds.([]any)
	for i := range list {
		properties := fmt.Sprintf("%s/oneOf/%d/properties", pointer, i)
		if name, _ := d.at(properties + "/event/const"); name == event["event"] {
			return d.validateJSON(properties+"/data/contentSchema", []byte(event["data"].(string)))
		}
	}
	return fmt.Errorf("nothing says what the data of %v is", event["event"])
}
