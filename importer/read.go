package importer

import (
	"cmp"
	"context"
	"database/sql"
	"slices"
	"strings"
	"time"

	"parley/models"
)

// An oldUser is an account of the source, with what it would be here. Its id is
// the old one.
type oldUser struct {
	models.User

	id      int64
	created *time.Time // as the source says it; nil if it does not
	mended  int64      // texts that had to be
}

// An oldChat is a chat of the source.
type oldChat struct {
	models.Chat

	id, user       int64
	hasID, hasUser bool
	messages       []oldMessage
	last           int64 // the largest id of its messages, also of those that stay behind
	mended         int64
	guessed        int64 // times of it and its messages that the source does not say
}

// An oldMessage is a message of the source.
type oldMessage struct {
	models.Message

	id     int64
	mended bool
}

// eachUser walks the accounts of the source, the oldest first. Those that cannot
// be one are left to the report.
func (r *run) eachUser(ctx context.Context, each func(oldUser) error) error {
	query, args := r.src.userQuery()
	var before sql.NullString
	return r.src.read(ctx, userWidth, query, args, func(v row) error {
		id, ok := v.id(userID)
		switch {
		case !ok:
			r.report.leave(users, noID, 0, 1)
			return nil
		case v[userID] == before:
			r.report.leave(users, twice, id, 1)
			return nil
		}
		before = v[userID]
		return each(r.userOf(id, v))
	})
}

func (r *run) userOf(id int64, v row) oldUser {
	u := oldUser{id: id}
	mend := func(s string, changed bool) string {
		if changed {
			u.mended++
		}
		return s
	}
	u.Email = v[userEmail].String
	u.UserName = mend(mendLine(v[userName].String, maxUserName))
	if u.UserName == "" {
		local, _, _ := strings.Cut(strings.TrimSpace(u.Email), "@")
		u.UserName, _ = mendLine(local, maxUserName)
	}
	u.PasswordHash = mend(mendText(v[userHash].String))
	u.IsAdmin = parseBool(v[userAdmin].String)
	if at, ok := parseTime(v[userDisabled].String, r.now); ok {
		u.DisabledAt = &at
	} else if v[userDisabled].Valid {
		u.DisabledAt = &r.now // when is not known, but it is
	}
	u.CreatedAt = r.now
	if at, ok := parseTime(v[userCreated].String, r.now); ok {
		u.CreatedAt, u.created = at, &at
	}
	return u
}

// eachChat walks the chats of the source, each with all of its messages.
func (r *run) eachChat(ctx context.Context, each func(oldChat) error) error {
	query, args := r.src.chatQuery()
	var chat *oldChat
	pass := func() error {
		switch {
		case chat == nil:
			return nil
		case !chat.hasID:
			r.report.leave(chats, noID, 0, 1)
			if n := len(chat.messages); n > 0 {
				r.report.leave(messages, chatStays, 0, int64(n))
			}
			return nil
		}
		return each(r.settle(*chat))
	}
	var before sql.NullString
	err := r.src.read(ctx, chatWidth+messageWidth, query, args, func(v row) error {
		if chat == nil || v[chatID] != before {
			if err := pass(); err != nil {
				return err
			}
			before, chat = v[chatID], r.chatOf(v)
		}
		r.addMessage(chat, v[chatWidth:])
		return nil
	})
	if err != nil {
		return err
	}
	return pass()
}

func (r *run) chatOf(v row) *oldChat {
	var c oldChat
	c.id, c.hasID = v.id(chatID)
	c.user, c.hasUser = v.id(chatUser)
	title, changed := mendLine(v[chatTitle].String, maxTitle)
	if changed {
		c.mended++
	}
	c.Title, c.Titled = title, title != "" && title != defaultTitle
	if r.src.service == parley {
		c.Titled = parseBool(v[chatTitled].String)
	}
	c.CreatedAt, _ = parseTime(v[chatCreated].String, r.now)
	c.ActiveAt, _ = parseTime(v[chatActive].String, r.now)
	return &c
}

// addMessage adds the message that a row of the chat holds, if it holds one that
// can be brought over.
func (r *run) addMessage(c *oldChat, v row) {
	id, ok := v.id(messageID)
	switch {
	case !v[messageID].Valid && !v[messageChat].Valid:
		return // a chat without messages
	case !ok:
		r.report.leave(messages, noID, 0, 1)
		return
	case len(c.messages) > 0 && id == c.messages[len(c.messages)-1].id:
		r.report.leave(messages, twice, id, 1)
		return
	}
	c.last = max(c.last, id)
	m := oldMessage{id: id}
	if m.Role = parseRole(v[messageRole].String); m.Role == "" {
		reason := noRole
		if isSystem(v[messageRole].String) {
			reason = systemRole
		}
		r.report.leave(messages, reason, id, 1)
		return
	}
	m.Content, m.mended = mendText(v[messageContent].String)
	m.CreatedAt, _ = parseTime(v[messageCreated].String, r.now)
	m.Status, m.Attempt = models.StatusComplete, 1
	if r.src.service == parley {
		m.setEnding(v)
	}
	c.messages = append(c.messages, m)
}

// brokenOff is the error code of a reply that was being written in the source:
// nobody goes on with it here.
const brokenOff = "internal_error"

// setEnding reads how a message of another Parley has ended.
func (m *oldMessage) setEnding(v row) {
	text := func(i int) *string {
		if !v[i].Valid {
			return nil
		}
		s, _ := mendText(v[i].String)
		return &s
	}
	m.FinishReason, m.ErrorCode = text(messageReason), text(messageError)
	m.InputTokens, m.OutputTokens = parseCount(v[messageInput].String), parseCount(v[messageOutput].String)
	m.Estimated = parseBool(v[messageEstimated].String)
	if n := parseCount(v[messageAttempt].String); n != nil && *n >= 1 {
		m.Attempt = int(min(*n, 1<<31-1))
	}
	if n := parseCount(v[messageShared].String); n != nil {
		m.SharedBytes = *n
	}
	switch status := v[messageStatus].String; status {
	case models.StatusStopped, models.StatusFailed:
		m.Status = status
	case models.StatusStreaming:
		code := brokenOff
		m.Status, m.ErrorCode = models.StatusFailed, &code
	}
}

// settle fills in the times that the source does not say, puts the messages in
// the order in which they were shown, and computes what a chat keeps of them.
func (r *run) settle(c oldChat) oldChat {
	known := func(m oldMessage) bool { return !m.CreatedAt.IsZero() }
	if c.CreatedAt.IsZero() {
		c.guessed++
		c.CreatedAt = r.now
		if i := slices.IndexFunc(c.messages, known); i >= 0 {
			c.CreatedAt = c.messages[i].CreatedAt
		}
	}
	before := c.CreatedAt
	for i := range c.messages {
		if !known(c.messages[i]) {
			c.guessed++
			c.messages[i].CreatedAt = before
		}
		before = c.messages[i].CreatedAt
	}
	if r.src.service != parley { // whose order is that of the ids
		slices.SortStableFunc(c.messages, func(a, b oldMessage) int {
			return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), cmp.Compare(a.id, b.id))
		})
	}
	if c.ActiveAt.IsZero() {
		c.ActiveAt = c.CreatedAt
	}
	return c
}
