package handlers

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"parley/auth"
	"parley/models"
)

// The days that GET /user/usage tells of.
const (
	defaultUsageDays = 31
	maxUsageDays     = 92
)

type usageDayJSON struct {
	Day             string `json:"day"`
	InputTokens     int64  `json:"input_tokens"`
	OutputTokens    int64  `json:"output_tokens"`
	EstimatedTokens int64  `json:"estimated_tokens"`
	Replies         int64  `json:"replies"`
}

func encodeUsageDay(d models.UsageDay) usageDayJSON {
	return usageDayJSON{d.Day, d.InputTokens, d.OutputTokens, d.EstimatedTokens, d.Replies}
}

type usageLimitJSON struct {
	DailyTokens int64     `json:"daily_tokens"`
	Used        int64     `json:"used"`
	Reserved    int64     `json:"reserved"`
	ResetsAt    timestamp `json:"resets_at"`
}

// usage answers GET /user/usage: what the user has used on the latest days, this
// one included, and where there is a limit how much of it is gone. A day without
// anything is left out.
func (s *server) usage(w http.ResponseWriter, r *http.Request, caller auth.Identity) error {
	query, err := parameters(r)
	if err != nil {
		return err
	}
	n, err := usageDays(query)
	if err != nil {
		return err
	}
	at := now()
	today := models.Day(at)
	days, err := s.db.Usage(r.Context(), caller.UserID, models.Day(at.AddDate(0, 0, 1-n)), today)
	if err != nil {
		return err
	}
	out := struct {
		Days  []usageDayJSON  `json:"days"`
		Limit *usageLimitJSON `json:"limit,omitempty"`
	}{Days: make([]usageDayJSON, 0, len(days))}
	if s.limits.DailyTokens > 0 {
		out.Limit = &usageLimitJSON{DailyTokens: s.limits.DailyTokens, ResetsAt: timestamp(models.NextDay(at))}
	}
	for _, d := range days {
		out.Days = append(out.Days, encodeUsageDay(d))
		if out.Limit != nil && d.Day == today {
			out.Limit.Used, out.Limit.Reserved = d.InputTokens+d.OutputTokens, d.Reserved
		}
	}
	return reply(w, http.StatusOK, out)
}

// usageDays reads ?days=.
func usageDays(q url.Values) (int, error) {
	if !q.Has("days") {
		return defaultUsageDays, nil
	}
	n, err := strconv.Atoi(q.Get("days"))
	if err != nil || n < 1 || n > maxUsageDays {
		return 0, invalid("invalid_parameter", "days", fmt.Sprintf("days must be a number from 1 to %d.", maxUsageDays))
	}
	return n, nil
}
