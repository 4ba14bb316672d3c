package handlers

import (
	"net/http"

	"parley/auth"
	"parley/models"
)

// maxTitle is the longest title of a chat, in characters.
const maxTitle = 200

// defaultTitle is what a chat is called that nobody named.
const defaultTitle = "New Chat"

// listChats answers GET /chats: all of them, or those that ?q= finds.
func (s *server) listChats(w http.ResponseWriter, r *http.Request, caller auth.Identity) error {
	query, p, err := listed(r)
	if err != nil {
		return err
	}
	text, err := searched(query)
	if err != nil {
		return err
	}
	var (
		chats []models.Chat
		next  string
	)
	if text == "" {
		chats, next, err = s.db.Chats(r.Context(), caller.UserID, p)
	} else {
		chats, next, err = s.db.SearchChats(r.Context(), caller.UserID, text, p)
	}
	if err != nil {
		return err
	}
	out := make([]chatJSON, len(chats))
	for i, c := range chats {
		out[i] = encodeChat(c)
	}
	return reply(w, http.StatusOK, struct {
		Chats      []chatJSON `json:"chats"`
		NextCursor string     `json:"next_cursor,omitempty"`
	}{out, next})
}

// createChat answers POST /chats.
func (s *server) createChat(w http.ResponseWriter, r *http.Request, caller auth.Identity) error {
	var in struct {
		Title *string `json:"title"`
	}
	body, err := readOptionalJSON(r)
	if err != nil {
		return err
	}
	if err := unmarshal(body, &in); err != nil {
		return err
	}
	title := defaultTitle
	if in.Title != nil {
		if title, err = line(*in.Title, maxTitle, "title"); err != nil {
			return err
		}
	}
	key, err := idempotencyKey(r, body)
	if err != nil {
		return err
	}
	chat, _, err := s.db.CreateChat(r.Context(), caller.UserID, title, in.Title != nil, key)
	if err != nil {
		return err
	}
	s.hub.Changed(r.Context(), caller.UserID)
	return reply(w, http.StatusCreated, encodeChat(chat))
}

// getChat answers GET /chats/{id}: the chat with a page of its messages.
func (s *server) getChat(w http.ResponseWriter, r *http.Request, caller auth.Identity) error {
	id, p, err := pathIDAndPage(r)
	if err != nil {
		return err
	}
	chat, err := s.db.Chat(r.Context(), caller.UserID, id)
	if err != nil {
		return err
	}
	messages, next, err := s.db.Messages(r.Context(), caller.UserID, id, p)
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, struct {
		chatJSON
		Messages   []messageJSON `json:"messages"`
		NextCursor string        `json:"next_cursor,omitempty"`
	}{encodeChat(chat), encodeMessages(messages), next})
}

// listMessages answers GET /chats/{id}/messages.
func (s *server) listMessages(w http.ResponseWriter, r *http.Request, caller auth.Identity) error {
	id, p, err := pathIDAndPage(r)
	if err != nil {
		return err
	}
	messages, next, err := s.db.Messages(r.Context(), caller.UserID, id, p)
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, struct {
		Messages   []messageJSON `json:"messages"`
		NextCursor string        `json:"next_cursor,omitempty"`
	}{encodeMessages(messages), next})
}

func pathIDAndPage(r *http.Request) (int64, models.Page, error) {
	id, err := pathID(r)
	if err != nil {
		return 0, models.Page{}, err
	}
	_, p, err := listed(r)
	return id, p, err
}

// renameChat answers PATCH /chats/{id}.
func (s *server) renameChat(w http.ResponseWriter, r *http.Request, caller auth.Identity) error {
	id, err := pathID(r)
	if err != nil {
		return err
	}
	var in struct {
		Title *string `json:"title"`
	}
	if err := decode(r, &in); err != nil {
		return err
	}
	if in.Title == nil {
		return required("title", "")
	}
	title, err := line(*in.Title, maxTitle, "title")
	if err != nil {
		return err
	}
	chat, err := s.db.RenameChat(r.Context(), caller.UserID, id, title)
	if err != nil {
		return err
	}
	s.hub.Changed(r.Context(), caller.UserID)
	return reply(w, http.StatusOK, encodeChat(chat))
}

// deleteChat answers DELETE /chats/{id}. A reply that runs there is stopped.
func (s *server) deleteChat(w http.ResponseWriter, r *http.Request, caller auth.Identity) error {
	id, err := pathID(r)
	if err != nil {
		return err
	}
	running, err := s.db.DeleteChat(r.Context(), caller.UserID, id)
	if err != nil {
		return err
	}
	if running != 0 {
		s.hub.Forget(r.Context(), running)
	}
	s.hub.Changed(r.Context(), caller.UserID)
	w.WriteHeader(http.StatusNoContent)
	return nil
}
