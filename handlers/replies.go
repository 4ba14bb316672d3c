package handlers

import (
	"net/http"

	"parley/auth"
	"parley/models"
)

// stopReply answers POST /messages/{id}/stop, when the reply has ended.
func (s *server) stopReply(w http.ResponseWriter, r *http.Request, caller auth.Identity) error {
	id, err := pathID(r)
	if err != nil {
		return err
	}
	if _, err := bodyWithoutFields(r); err != nil {
		return err
	}
	message, err := s.hub.Stop(r.Context(), caller.UserID, id)
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, encodeMessage(message))
}

// regenerate answers POST /messages/{id}/regenerate.
func (s *server) regenerate(w http.ResponseWriter, r *http.Request, caller auth.Identity) error {
	id, err := pathID(r)
	if err != nil {
		return err
	}
	body, err := bodyWithoutFields(r)
	if err != nil {
		return err
	}
	form, key, err := replyWish(r, body)
	if err != nil {
		return err
	}
	return s.answerWith(w, r, caller, form, func(limit models.Limit) (models.Exchange, error) {
		return s.hub.Regenerate(r.Context(), models.Rewrite{UserID: caller.UserID, MessageID: id, Key: key, Limit: limit})
	})
}

// editMessage answers POST /messages/{id}/edit.
func (s *server) editMessage(w http.ResponseWriter, r *http.Request, caller auth.Identity) error {
	id, message, body, err := readMessage(r)
	if err != nil {
		return err
	}
	if err := checkMessage(message); err != nil {
		return err
	}
	form, key, err := replyWish(r, body)
	if err != nil {
		return err
	}
	return s.answerWith(w, r, caller, form, func(limit models.Limit) (models.Exchange, error) {
		return s.hub.Edit(r.Context(), models.Rewrite{UserID: caller.UserID, MessageID: id, Content: *message, Key: key, Limit: limit})
	})
}

// bodyWithoutFields reads the body of a route that has no fields: nothing, or
// any JSON object.
func bodyWithoutFields(r *http.Request) ([]byte, error) {
	body, err := readOptionalJSON(r)
	if err != nil {
		return nil, err
	}
	return body, unmarshal(body, &struct{}{})
}
