package stream

import (
	"context"
	"time"

	"parley/metrics"
	"parley/models"
)

// Config adjusts a Hub. A zero field means the default in brackets.
type Config struct {
	Replica         string        // names this process among the replicas; required, unique
	ContextBytes    int64         // how much history goes to the backend [0: all]
	ContextMessages int64         // likewise, in messages [0: all]
	Model           string        // asked of the backend ["": its choice]
	MaxReplyBytes   int           // a longer answer is cut off [1 MiB]
	FlushEvery      time.Duration // how often a reply is saved that is followed elsewhere [100ms]
	SaveEvery       time.Duration // how often any other one is, at the most [2s]
	PollEvery       time.Duration // how often the database is asked what happened elsewhere [1s]
	Lease           time.Duration // a replica silent for so long has lost its replies [3s]
	Heartbeat       time.Duration // between two comments to one client [10s]
	Stall           time.Duration // a client that reads nothing for so long is let go [25s]
	MaxReplies      int           // that are begun here and run [0: any number]
	MaxLateness     time.Duration // no reply is taken while this process's timers are later than that [250ms]
	MaxWait         time.Duration // nor while, in a crowd, what could go on waits so long for a processor [20ms]
	Crowd           int           // replies for each processor before it is they that it waits for [250]
	MaxStreams      int64         // that one user may have open, over all replicas [0: any number]
	DailyTokenLimit int64         // of one user, over all replicas [0: any number]
	ReserveTokens   int64         // how long an answer is taken to be until it has ended, under that limit [1024]
	Titles          bool          // the backend is asked for the titles of chats too [they stay the user's words]

	// Synthesizer speaks [nil: no reply is spoken here].
	Synthesizer Synthesizer
	MaxSpoken   int // sentences of replies that are spoken at once, and likewise texts by Speak [16]

	Metrics *metrics.Replies // what is counted [nobody reads it]

	// Carry returns what the call to the backend keeps of the context in which a
	// reply was asked for, which must be little: a reply takes minutes [nothing].
	Carry func(context.Context) context.Context

	// Revoked tells whether a viewer was signed out [nil: nobody ever is]. It is
	// asked as a stream opens, and of every open one by CutOff.
	Revoked func(Viewer) bool

	// SessionsEnded is called when another replica says that device sessions have
	// ended, or may have said so unheard. It must not block [nothing is done].
	SessionsEnded func()
}

func (c *Config) setDefaults() {
	if c.Metrics == nil {
		c.Metrics = metrics.NewReplies(nil)
	}
	if c.MaxReplyBytes == 0 {
		c.MaxReplyBytes = 1 << 20
	}
	if c.SessionsEnded == nil {
		c.SessionsEnded = func() {}
	}
	if c.Crowd == 0 {
		c.Crowd = 250
	}
	if c.MaxSpoken == 0 {
		c.MaxSpoken = 16
	}
	if c.ReserveTokens == 0 {
		c.ReserveTokens = 1024
	}
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&c.FlushEvery, 100 * time.Millisecond},
		{&c.SaveEvery, 2 * time.Second},
		{&c.PollEvery, time.Second},
		{&c.Lease, 3 * time.Second},
		{&c.Heartbeat, 10 * time.Second},
		{&c.Stall, 25 * time.Second},
		{&c.MaxLateness, 250 * time.Millisecond},
		{&c.MaxWait, 20 * time.Millisecond},
	} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
}

// budget is what a reply may cost.
func (c *Config) budget() models.Budget {
	return models.Budget{
		Context:    models.Context{Bytes: c.ContextBytes, Messages: c.ContextMessages},
		Answer:     c.ReserveTokens,
		DailyLimit: c.DailyTokenLimit,
	}
}
