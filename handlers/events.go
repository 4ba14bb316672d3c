package handlers

import (
	"net/http"
	"slices"

	"parley/auth"
	"parley/models"
	"parley/stream"
)

// followEvents answers GET /events: all that happens to the user, on any
// device.
func (s *server) followEvents(w http.ResponseWriter, r *http.Request, caller auth.Identity) error {
	last, err := lastEventID(r)
	if err != nil {
		return err
	}
	return s.hub.ServeEvents(w, r, viewer(caller), last, encodeEvent)
}

// lastEventID is where a client that comes back stands. What a browser sends of
// itself counts more than the URL that it began with. Who says that it stands in
// two places has got something wrong.
func lastEventID(r *http.Request) (string, error) {
	query, unreadable := parameters(r)
	for _, given := range [][]string{r.Header.Values("Last-Event-ID"), query["last_event_id"]} {
		switch given = slices.Compact(given); {
		case len(given) > 1:
			return "", stream.ErrInvalidEventID
		case len(given) == 1 && given[0] != "":
			return given[0], nil
		}
	}
	if unreadable != nil {
		return "", stream.ErrInvalidEventID
	}
	return "", nil
}

// encodeEvent says how a stored event is told. One about something that was
// deleted since is not: the deletion is an event too.
func encodeEvent(e models.UserEvent) (name string, data any, ok bool) {
	type deletedJSON struct {
		ChatID int64 `json:"chat_id"`
		After  int64 `json:"after_message_id,omitempty"`
	}
	switch e.Kind {
	case models.EventChatCreated, models.EventChatUpdated:
		if e.Chat == nil {
			return "", nil, false
		}
		return e.Kind, encodeChat(*e.Chat), true
	case models.EventMessageCreated, models.EventMessageUpdated:
		if e.Message == nil {
			return "", nil, false
		}
		return e.Kind, encodeMessage(*e.Message), true
	}
	return e.Kind, deletedJSON{e.ChatID, e.MessageID}, true
}
