package handlers

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"parley/auth"
	"parley/models"
)

// reply answers with v as JSON. The error is only that v has no JSON form: a
// client that has gone is for nobody to handle.
func reply(w http.ResponseWriter, status int, v any) error {
	var body bytes.Buffer
	e := json.NewEncoder(&body)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return fmt.Errorf("encode an answer: %w", err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(body.Bytes()) //nolint:errcheck // see above
	return nil
}

// A timestamp is a time as the API writes it: RFC 3339 in UTC.
type timestamp time.Time

// MarshalJSON implements json.Marshaler.
func (t timestamp) MarshalJSON() ([]byte, error) { return time.Time(t).UTC().MarshalJSON() }

// A said is an answer that is only a sentence.
type said struct {
	Message string `json:"message"`
}

type userJSON struct {
	ID        int64     `json:"id"`
	Email     string    `json:"email"`
	UserName  string    `json:"user_name"`
	IsAdmin   bool      `json:"is_admin"`
	CreatedAt timestamp `json:"created_at"`
}

func encodeUser(u models.User) userJSON {
	return userJSON{u.ID, u.Email, u.UserName, u.IsAdmin, timestamp(u.CreatedAt)}
}

type tokensJSON struct {
	AccessToken      string `json:"access_token"`
	TokenType        string `json:"token_type"`
	ExpiresIn        int64  `json:"expires_in"`
	RefreshToken     string `json:"refresh_token"`
	RefreshExpiresIn int64  `json:"refresh_expires_in"`
}

func encodeTokens(p auth.Pair) tokensJSON {
	return tokensJSON{p.AccessToken, "Bearer", p.ExpiresIn, p.RefreshToken, p.RefreshExpiresIn}
}

type deviceJSON struct {
	ID         int64     `json:"id"`
	Name       string    `json:"name"`
	IP         string    `json:"ip"`
	CreatedAt  timestamp `json:"created_at"`
	LastSeenAt timestamp `json:"last_seen_at"`
	Current    bool      `json:"current"`
}

// encodeDevice says of a device if it is the one that the caller uses.
func encodeDevice(d models.DeviceSession, caller auth.Identity) deviceJSON {
	return deviceJSON{d.ID, d.Name, d.IP, timestamp(d.CreatedAt), timestamp(d.LastSeenAt), d.SID == caller.SID}
}

type chatJSON struct {
	ID              int64      `json:"id"`
	Title           string     `json:"title"`
	CreatedAt       timestamp  `json:"created_at"`
	MessageCount    int64      `json:"message_count"`
	LastMessageTime *timestamp `json:"last_message_time"`
}

func encodeChat(c models.Chat) chatJSON {
	return chatJSON{c.ID, c.Title, timestamp(c.CreatedAt), c.MessageCount, (*timestamp)(c.LastMessageAt)}
}

type messageJSON struct {
	ID           int64      `json:"id"`
	ChatID       int64      `json:"chat_id"`
	Role         string     `json:"role"`
	Content      string     `json:"content"`
	Timestamp    timestamp  `json:"timestamp"`
	Status       string     `json:"status"`
	FinishReason *string    `json:"finish_reason,omitempty"`
	Usage        *usageJSON `json:"usage,omitempty"`
}

type usageJSON struct {
	InputTokens  int64 `json:"input_tokens"`
	OutputTokens int64 `json:"output_tokens"`
	Estimated    bool  `json:"estimated,omitempty"`
}

func encodeMessage(m models.Message) messageJSON {
	out := messageJSON{
		ID: m.ID, ChatID: m.ChatID, Role: m.Role, Content: m.Content,
		Timestamp: timestamp(m.CreatedAt), Status: m.Status, FinishReason: m.FinishReason,
	}
	if m.InputTokens != nil && m.OutputTokens != nil {
		out.Usage = &usageJSON{*m.InputTokens, *m.OutputTokens, m.Estimated}
	}
	return out
}

func encodeMessages(messages []models.Message) []messageJSON {
	out := make([]messageJSON, len(messages))
	for i, m := range messages {
		out[i] = encodeMessage(m)
	}
	return out
}
