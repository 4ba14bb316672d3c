package handlers

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"unicode/utf8"

	"parley/auth"
	"parley/models"
	"parley/stream"
)

// maxMessage is the longest message, in characters.
const maxMessage = 32_000

// sendMessage answers POST /messages. Without a chat a new one begins.
func (s *server) sendMessage(w http.ResponseWriter, r *http.Request, caller auth.Identity) error {
	var in struct {
		Message   *string `json:"message"`
		ChatID    *int64  `json:"chat_id"`
		SessionID *int64  `json:"session_id"`
	}
	body, err := readJSON(r)
	if err != nil {
		return err
	}
	if err := unmarshal(body, &in); err != nil {
		return err
	}
	chatID, err := oneChat(in.ChatID, in.SessionID)
	if err != nil {
		return err
	}
	return s.send(w, r, caller, chatID, in.Message, body)
}

// oneChat returns the chat that chat_id and session_id name, 0 for neither.
func oneChat(chatID, sessionID *int64) (int64, error) {
	field := "chat_id"
	switch {
	case chatID == nil && sessionID == nil:
		return 0, nil
	case chatID == nil:
		chatID, field = sessionID, "session_id"
	case sessionID != nil && *chatID != *sessionID:
		return 0, invalid("invalid_chat_id", "session_id", "chat_id and session_id name different chats.")
	}
	if *chatID < 1 {
		return 0, invalid("invalid_chat_id", field, field+" must be a positive number.")
	}
	return *chatID, nil
}

// sendToChat answers POST /chats/{id}/messages.
func (s *server) sendToChat(w http.ResponseWriter, r *http.Request, caller auth.Identity) error {
	id, message, body, err := readMessage(r)
	if err != nil {
		return err
	}
	return s.send(w, r, caller, id, message, body)
}

// readMessage reads the id in the path and the message in the body, which is
// nil where the body has none, and returns the body too.
func readMessage(r *http.Request) (id int64, message *string, body []byte, err error) {
	if id, err = pathID(r); err != nil {
		return 0, nil, nil, err
	}
	var in struct {
		Message *string `json:"message"`
	}
	if body, err = readJSON(r); err != nil {
		return 0, nil, nil, err
	}
	err = unmarshal(body, &in)
	return id, in.Message, body, err
}

// send stores a message and answers with the reply to it.
func (s *server) send(w http.ResponseWriter, r *http.Request, caller auth.Identity, chatID int64, message *string, body []byte) error {
	if err := checkMessage(message); err != nil {
		return err
	}
	form, key, err := replyWish(r, body)
	if err != nil {
		return err
	}
	return s.answerWith(w, r, caller, form, func(limit models.Limit) (models.Exchange, error) {
		return s.hub.Send(r.Context(), models.NewTurn{
			UserID: caller.UserID, ChatID: chatID, Content: *message, Key: key, Limit: limit,
		})
	})
}

// answerWith answers with the reply that begin begins, unless the user has begun
// too many: it counts what it stores under the limit. One that was begun before,
// under the same key, does not count.
func (s *server) answerWith(w http.ResponseWriter, r *http.Request, caller auth.Identity, form form, begin func(models.Limit) (models.Exchange, error)) error {
	if form == asEvents {
		// What is stored cannot be answered with a refusal any more.
		if err := s.hub.MayOpen(caller.UserID); err != nil {
			return err
		}
	}
	limit := s.messagesOf(caller)
	ex, err := begin(limit)
	if err := s.tellCounted(w, r, limit, ex, err); err != nil {
		return err
	}
	return s.answerReply(w, r, caller, ex, form)
}

// tellCounted tells the client how its limit of messages stands after ex, and
// returns the error that it is answered with. What was refused for another reason
// than the limit has stored nothing, and counts as well.
func (s *server) tellCounted(w http.ResponseWriter, r *http.Request, limit models.Limit, ex models.Exchange, err error) error {
	var over *models.OverLimit
	switch {
	case errors.As(err, &over):
		ex.Counted = over.Counted
	case err != nil && problemOf(err).status >= http.StatusInternalServerError:
		return err
	case err != nil:
		_, tooMany := s.throttle(w, r, messagesPolicy, errTooManyMessages, limit)
		return cmp.Or(tooMany, err)
	case ex.Replayed:
		s.tellUncounted(w, r, limit)
		return nil
	}
	t := tally{policy: messagesPolicy, counted: map[string]models.Counted{limit.Key: ex.Counted}}
	if limit.Quota != 0 {
		t.limits = []models.Limit{limit}
	}
	return s.admit(r.Context(), w.Header(), t, errTooManyMessages, limit)
}

// tellUncounted tells the client how its limit of messages stands, if that can be
// known: whoever asks once more is answered either way.
func (s *server) tellUncounted(w http.ResponseWriter, r *http.Request, limit models.Limit) {
	switch t, err := s.count(r.Context(), messagesPolicy, limit); {
	case err != nil:
	case t.refuses(limit):
		messagesPolicy.tell(w.Header(), 0, t.counted[limit.Key].RetryAfter)
	default:
		s.takeBack(r.Context(), w.Header(), t)
	}
}

// replyWish returns in which form the client asks for a reply, and under which
// key, or nil.
func replyWish(r *http.Request, body []byte) (form, *models.IdempotencyKey, error) {
	form, err := replyForm(r.Header)
	if err != nil {
		return 0, nil, err
	}
	key, err := idempotencyKey(r, body)
	return form, key, err
}

// answerReply answers with the reply of ex in that form.
func (s *server) answerReply(w http.ResponseWriter, r *http.Request, caller auth.Identity, ex models.Exchange, form form) error {
	switch form {
	case asEvents:
		return s.hub.Serve(w, r, viewer(caller), ex.Reply.ID, "")
	case asJSON:
		return s.replyWhole(w, r, caller, ex)
	default:
		w.Header().Set("Preference-Applied", "respond-async")
		return replyLater(w, ex)
	}
}

func checkMessage(message *string) error {
	switch {
	case message == nil:
		return required("message", "")
	case strings.TrimSpace(*message) == "":
		return invalid("empty_message", "message", "message holds nothing but white space.")
	case utf8.RuneCountInString(*message) > maxMessage:
		return invalid("message_too_long", "message", fmt.Sprintf("message may have %d characters at most.", maxMessage))
	}
	return nil
}

type exchangeJSON struct {
	ChatID      int64       `json:"chat_id"`
	UserMessage messageJSON `json:"user_message"`
	Message     messageJSON `json:"message"`
}

func encodeExchange(ex models.Exchange) exchangeJSON {
	return exchangeJSON{ex.Chat.ID, encodeMessage(ex.User), encodeMessage(ex.Reply)}
}

// replyWhole waits for the end of the reply. A replica that has to end before
// it says where the rest is: the turn is stored, and must not be sent again. So is
// a client told that says nothing more: it may still listen.
func (s *server) replyWhole(w http.ResponseWriter, r *http.Request, caller auth.Identity, ex models.Exchange) error {
	message, err := s.hub.Await(r.Context(), caller.UserID, ex.Reply.ID)
	if errors.Is(err, stream.ErrDraining) {
		return replyLater(w, ex)
	}
	if clientGone(r, err) {
		return errors.Join(err, replyLater(w, ex))
	}
	if err != nil {
		return err
	}
	// A reply may take minutes: its caller may have been signed out meanwhile.
	if err := s.alive(r.Context(), caller); err != nil {
		return err
	}
	ex.Reply = message
	return reply(w, http.StatusOK, encodeExchange(ex))
}

// replyLater answers at once, with where the reply can be followed.
func replyLater(w http.ResponseWriter, ex models.Exchange) error {
	w.Header().Set("Location", fmt.Sprintf("%s/messages/%d/stream", mounts[0], ex.Reply.ID))
	return reply(w, http.StatusAccepted, encodeExchange(ex))
}

// idempotencyKey returns the key that r was sent under, or nil. The body is
// compared as it was sent, byte for byte, together with the id in the path:
// who sends again sends the same bytes, and no reading of them can make two
// different messages look alike.
func idempotencyKey(r *http.Request, body []byte) (*models.IdempotencyKey, error) {
	key, err := keyName(r)
	if key == "" || err != nil {
		return nil, err
	}
	info := infoOf(r)
	sum := sha256.Sum256(append([]byte(info.params.ByName("id")+"\n"), body...))
	return &models.IdempotencyKey{Route: info.route.keyed, Key: key, BodyHash: hex.EncodeToString(sum[:])}, nil
}

// keyName returns what stands in Idempotency-Key, "" if there is none.
func keyName(r *http.Request) (string, error) {
	keys := r.Header.Values("Idempotency-Key")
	switch {
	case len(keys) == 0:
		return "", nil
	case len(keys) > 1 || !validKey(keys[0]):
		return "", invalid("invalid_idempotency_key", "Idempotency-Key", "An Idempotency-Key is 1 to 255 visible ASCII characters.")
	}
	return keys[0], nil
}

func validKey(key string) bool {
	outside := func(c rune) bool { return c <= ' ' || '~' < c }
	return 1 <= len(key) && len(key) <= 255 && !strings.ContainsFunc(key, outside)
}

// getMessage answers GET /messages/{id}.
func (s *server) getMessage(w http.ResponseWriter, r *http.Request, caller auth.Identity) error {
	id, err := pathID(r)
	if err != nil {
		return err
	}
	message, err := s.db.Message(r.Context(), caller.UserID, id)
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, encodeMessage(message))
}

// followMessage answers GET /messages/{id}/stream.
func (s *server) followMessage(w http.ResponseWriter, r *http.Request, caller auth.Identity) error {
	id, err := pathID(r)
	if err != nil {
		return err
	}
	last, err := lastEventID(r)
	if err != nil {
		return err
	}
	return s.hub.Serve(w, r, viewer(caller), id, last)
}
