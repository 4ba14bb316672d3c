package stream

import "parley/models"

// mostTokens is more than any answer takes: a backend that says more does not
// count.
const mostTokens = 1 << 40

// counted is what the backend says that an answer has cost, nil if it does not
// count.
func (h *Hub) counted(u *Usage) *models.Usage {
	if u == nil || min(u.InputTokens, u.OutputTokens) < 0 || max(u.InputTokens, u.OutputTokens) > mostTokens || *u == (Usage{}) {
		return nil
	}
	return &models.Usage{Model: h.config.Model, InputTokens: u.InputTokens, OutputTokens: u.OutputTokens}
}

// estimated is what a prompt and an answer of so many bytes may have cost.
func (h *Hub) estimated(sent, said int64) *models.Usage {
	return &models.Usage{
		Model:        h.config.Model,
		InputTokens:  models.EstimateTokens(sent),
		OutputTokens: models.EstimateTokens(said),
		Estimated:    true,
	}
}

// used is what the reply has cost that ends with a text of so many bytes. What
// failed before the backend said anything has cost nothing: it was not reached,
// or had no room.
func (c *composition) used(status string, size int) *models.Usage {
	switch {
	case c.ending.usage != nil && c.extra != nil:
		return &models.Usage{
			Model:        c.ending.usage.Model,
			InputTokens:  c.ending.usage.InputTokens + c.extra.InputTokens,
			OutputTokens: c.ending.usage.OutputTokens + c.extra.OutputTokens,
			Estimated:    c.extra.Estimated,
		}
	case c.ending.usage != nil:
		return c.ending.usage
	case status == models.StatusFailed && !c.heard:
		return c.hub.estimated(0, 0)
	}
	return c.hub.estimated(c.sent, int64(max(0, size-c.given)))
}

// size is how much the backend is asked with, in bytes.
func (p *Prompt) size() int64 {
	n := len(p.Message) + len(p.ContinueFrom)
	for _, t := range p.History {
		n += len(t.Content)
	}
	return int64(n)
}
