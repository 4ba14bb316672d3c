package handlers

import "parley/models"

// What administrators are shown.

type metricsJSON struct {
	TotalUsers        int64           `json:"total_users"`
	TotalChatSessions int64           `json:"total_chat_sessions"`
	TotalMessages     int64           `json:"total_messages"`
	Estimates         []string        `json:"estimates"` // which of the three are
	ActiveUsers       activeUsersJSON `json:"active_users"`
	RunningReplies    int64           `json:"running_replies"`
	Days              []dayJSON       `json:"days"`
}

type activeUsersJSON struct {
	Day   int64 `json:"day"`
	Week  int64 `json:"week"`
	Month int64 `json:"month"`
}

type dayJSON struct {
	Day             string `json:"day"`
	ActiveUsers     int64  `json:"active_users"`
	Replies         int64  `json:"replies"`
	InputTokens     int64  `json:"input_tokens"`
	OutputTokens    int64  `json:"output_tokens"`
	EstimatedTokens int64  `json:"estimated_tokens"` // of both
}

func encodeMetrics(m models.SystemMetrics) metricsJSON {
	out := metricsJSON{
		TotalUsers: m.Users.N, TotalChatSessions: m.Chats.N, TotalMessages: m.Messages.N,
		Estimates:      []string{},
		ActiveUsers:    activeUsersJSON{m.Active.Day, m.Active.Week, m.Active.Month},
		RunningReplies: m.Running,
		Days:           make([]dayJSON, len(m.Days)),
	}
	for _, figure := range []struct {
		name      string
		estimated bool
	}{
		{"total_users", m.Users.Estimated},
		{"total_chat_sessions", m.Chats.Estimated},
		{"total_messages", m.Messages.Estimated},
	} {
		if figure.estimated {
			out.Estimates = append(out.Estimates, figure.name)
		}
	}
	for i, d := range m.Days {
		out.Days[i] = dayJSON{d.Day, d.Users, d.Replies, d.InputTokens, d.OutputTokens, d.EstimatedTokens}
	}
	return out
}

type userSummaryJSON struct {
	userJSON
	ChatCount    int64      `json:"chat_count"`
	MessageCount int64      `json:"message_count"`
	LastSeenAt   *timestamp `json:"last_seen_at"`
	Disabled     bool       `json:"disabled"`
}

func encodeUserSummary(u models.UserSummary) userSummaryJSON {
	return userSummaryJSON{
		encodeUser(u.User), u.ChatCount, u.MessageCount, (*timestamp)(u.LastSeenAt()), u.DisabledAt != nil,
	}
}

// An auditEntryJSON is an entry as a whole; whom it names none of, it leaves out.
type auditEntryJSON struct {
	ID           int64     `json:"id"`
	At           timestamp `json:"at"`
	Action       string    `json:"action"`
	ActorID      int64     `json:"actor_id,omitempty"`
	ActorEmail   string    `json:"actor_email,omitempty"`
	SubjectID    int64     `json:"subject_id,omitempty"`
	SubjectEmail string    `json:"subject_email,omitempty"`
	IP           string    `json:"ip"`
	RequestID    string    `json:"request_id"`
	Detail       string    `json:"detail"`
}

func encodeAuditEntry(e models.AuditEntry) auditEntryJSON {
	return auditEntryJSON{
		e.ID, timestamp(e.At), e.Action, e.ActorID, e.ActorEmail, e.SubjectID, e.SubjectEmail, e.IP, e.RequestID, e.Detail,
	}
}
