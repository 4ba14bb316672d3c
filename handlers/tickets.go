package handlers

import (
	"errors"
	"net/http"

	"parley/auth"
	"parley/models"
)

// makeTicket answers POST /messages/{id}/stream-ticket. Only a reply has a
// stream.
func (s *server) makeTicket(w http.ResponseWriter, r *http.Request, caller auth.Identity) error {
	id, err := pathID(r)
	if err != nil {
		return err
	}
	if _, err := bodyWithoutFields(r); err != nil {
		return err
	}
	message, err := s.db.Message(r.Context(), caller.UserID, id)
	if err != nil {
		return err
	}
	if message.Role != models.RoleAssistant {
		return models.ErrNotFound
	}
	ticket, expiresIn, err := s.tokens.IssueTicket(caller, id)
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, struct {
		Ticket    string `json:"ticket"`
		ExpiresIn int64  `json:"expires_in"`
	}{ticket, expiresIn})
}

// bearerOrTicket returns who sent r: the bearer of an access token, or where
// none was sent, the holder of the ticket in the query. A browser may send
// Basic credentials of its own accord to whatever stands in front of the
// service: those are no access token.
func (s *server) bearerOrTicket(r *http.Request) (auth.Identity, error) {
	tickets := r.URL.Query()["ticket"]
	if _, err := bearerToken(r.Header); len(tickets) == 0 || !errors.Is(err, errNoToken) {
		return s.authenticate(r)
	}
	if len(tickets) > 1 {
		return auth.Identity{}, errInvalidTicket
	}
	ticket, err := s.tokens.VerifyTicket(tickets[0])
	if err != nil {
		return auth.Identity{}, errInvalidTicket
	}
	if id, err := pathID(r); err != nil || id != ticket.MessageID {
		return auth.Identity{}, errInvalidTicket
	}
	if err := s.alive(r.Context(), ticket.Identity); err != nil {
		return auth.Identity{}, err
	}
	infoOf(r).userID = ticket.UserID
	return ticket.Identity, nil
}
