package stream

import "context"

// Queued counts the requests that wait for a place among the replies that run.
func (h *Hub) Queued() int64 { return h.queued.Load() }

// Places is how many replies may run here at once; 0 is any number.
func (h *Hub) Places() int { return cap(h.places) }

// DailyTokenLimit is how many tokens a user may use in a day; 0 is any number.
func (h *Hub) DailyTokenLimit() int64 { return h.config.DailyTokenLimit }

// Feeds counts the open streams that are feeds.
func (h *Hub) Feeds() int64 {
	h.feeds.mu.Lock()
	defer h.feeds.mu.Unlock()
	var n int64
	for _, of := range h.feeds.of {
		n += int64(len(of))
	}
	return n
}

// carried is what the call to the backend keeps of ctx.
func (h *Hub) carried(ctx context.Context) context.Context {
	if h.config.Carry == nil {
		return context.Background()
	}
	return h.config.Carry(ctx)
}
