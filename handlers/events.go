package handlers

import (
	"net/http"

	"parley/auth"
	"parley/models"
)

// followEvents answers GET /events: all that happens to the user, on any
// device.
func (s *server) followEvents(w http.ResponseWriter, r *http.Request, caller auth.Identity) error {
	return s.hub.ServeEvents(w, r, caller.UserID, lastEventID(r), encodeEvent)
}

// lastEventID is where a client that comes back stands. What a browser sends of
// itself counts more than the URL that it began with.
func lastEventID(r *http.Request) string {
	if last := r.Header.Get("Last-Event-ID"); last != "" {
		return last
	}
	return r.URL.Query().Get("last_event_id")
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
