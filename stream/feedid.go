package stream

import (
	"context"
	"strconv"
	"strings"
)

// A feedID is where a feed stands: the last stored event, and a place in each
// reply whose end was not sent yet. "17~42.1-300~44" is event 17, byte 300 of
// the first attempt at message 42, and nothing yet of message 44.
type feedID struct {
	seq    int64
	places []place
}

type place struct {
	messageID int64
	id        eventID // zero: not even its start was sent
}

func (id *feedID) append(b []byte) []byte {
	b = strconv.AppendInt(b, id.seq, 10)
	for _, p := range id.places {
		b = append(b, '~')
		b = strconv.AppendInt(b, p.messageID, 10)
		if p.id != (eventID{}) {
			b = append(b, '.')
			b = p.id.append(b)
		}
	}
	return b
}

// place is where the feed stands once moved has come to id. A reply that is
// done has no place.
func (f *feed) place(moved *track, id eventID) *feedID {
	f.at.places = f.at.places[:0]
	for _, t := range f.tracks {
		switch {
		case t == moved:
			f.at.places = append(f.at.places, place{t.reply.start.MessageID, id})
		case t.done:
		case t.begun:
			f.at.places = append(f.at.places, place{t.reply.start.MessageID, eventID{attempt: t.attempt, offset: t.at}})
		default:
			f.at.places = append(f.at.places, place{messageID: t.reply.start.MessageID})
		}
	}
	return &f.at
}

// standBefore has the feed begin where the first of these replies did: they wait
// for their turn as those do that begin later, and an id says so too.
func (f *feed) standBefore(ctx context.Context, waiting []int64) error {
	if len(waiting) == 0 {
		return nil
	}
	first, err := f.hub.db.FirstReplyEvent(ctx, f.viewer.UserID, waiting)
	if err == nil && first > 0 {
		f.at.seq = min(f.at.seq, first-1)
	}
	return err
}

// parseFeedID reads what append wrote, and nothing else.
func parseFeedID(s string) (feedID, error) {
	head, rest, more := strings.Cut(s, "~")
	seq, err := parseDecimal(head)
	if err != nil {
		return feedID{}, err
	}
	at := feedID{seq: seq}
	for more {
		var part string
		part, rest, more = strings.Cut(rest, "~")
		message, id, begun := strings.Cut(part, ".")
		p := place{}
		if p.messageID, err = parseDecimal(message); err != nil {
			return feedID{}, err
		}
		if begun {
			if p.id, err = parseEventID(id); err != nil || p.id.seq > 0 {
				return feedID{}, ErrInvalidEventID
			}
		}
		if at.places = append(at.places, p); len(at.places) > maxTracks {
			return feedID{}, ErrInvalidEventID
		}
	}
	return at, nil
}
