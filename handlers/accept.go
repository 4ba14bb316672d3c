package handlers

import (
	"mime"
	"net/http"
	"regexp"
	"strconv"
	"strings"
)

// A form is the way in which a reply is answered.
type form int

const (
	asEvents form = iota // the stream
	asJSON               // one answer when the reply has ended
	asAsync              // one answer at once, that says where the stream is
)

// replyForm reads Accept (RFC 9110, section 12.5.1) and Prefer (RFC 7240).
// Among types of the same quality the one that is named more exactly wins, and
// then the stream: an HTTP library that asks for "application/json, */*" wants
// JSON, and "*/*" is no preference.
func replyForm(h http.Header) (form, error) {
	ranges := parseAccept(h.Values("Accept"))
	events, json := rate(ranges, "text", "event-stream"), rate(ranges, "application", "json")
	switch {
	case len(ranges) == 0:
		return asEvents, nil
	case events.quality == 0 && json.quality == 0:
		return 0, errNotAcceptable
	case events.quality > json.quality,
		events.quality == json.quality && events.exactness >= json.exactness:
		return asEvents, nil
	case prefersAsync(h.Values("Prefer")):
		return asAsync, nil
	}
	return asJSON, nil
}

// prefersPage reports whether a client would rather have HTML than JSON, as
// browsers say; who has no preference is a program.
func prefersPage(h http.Header) bool {
	ranges := parseAccept(h.Values("Accept"))
	page, json := rate(ranges, "text", "html"), rate(ranges, "application", "json")
	return page.quality > json.quality ||
		page.quality == json.quality && page.quality > 0 && page.exactness > json.exactness
}

// A mediaRange is one element of Accept.
type mediaRange struct {
	kind, subtype string // "*" is any
	quality       float64
}

// qvalue is a weight as RFC 9110, section 12.4.2, has it.
var qvalue = regexp.MustCompile(`^(0(\.[0-9]{0,3})?|1(\.0{0,3})?)$`)

// parseAccept returns the ranges of Accept. Elements that are none are left out.
func parseAccept(values []string) []mediaRange {
	var ranges []mediaRange
	for element := range strings.SplitSeq(strings.Join(values, ","), ",") {
		mediaType, params, err := mime.ParseMediaType(element)
		kind, subtype, ok := strings.Cut(mediaType, "/")
		if err != nil || !ok {
			continue
		}
		quality := 1.0
		if q, ok := params["q"]; ok {
			if !qvalue.MatchString(q) {
				continue
			}
			quality, _ = strconv.ParseFloat(q, 64)
		}
		ranges = append(ranges, mediaRange{kind, subtype, quality})
	}
	return ranges
}

// A rating is what a client thinks of one media type.
type rating struct {
	quality   float64 // 0: not acceptable
	exactness int     // 2: named; 1: its kind; 0: anything
}

// rate returns what ranges say of a type: the most exact one that matches counts.
func rate(ranges []mediaRange, kind, subtype string) rating {
	best := rating{exactness: -1}
	for _, m := range ranges {
		r := rating{m.quality, 0}
		switch {
		case m.kind == kind && m.subtype == subtype:
			r.exactness = 2
		case m.kind == kind && m.subtype == "*":
			r.exactness = 1
		case m.kind != "*" || m.subtype != "*":
			continue
		}
		if r.exactness > best.exactness || (r.exactness == best.exactness && r.quality > best.quality) {
			best = r
		}
	}
	return best
}

// prefersAsync reports whether Prefer holds respond-async.
func prefersAsync(values []string) bool {
	for element := range strings.SplitSeq(strings.Join(values, ","), ",") {
		name, _, _ := strings.Cut(element, ";")
		if strings.EqualFold(strings.TrimSpace(name), "respond-async") {
			return true
		}
	}
	return false
}
