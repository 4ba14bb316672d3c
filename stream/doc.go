// Package stream carries replies from the AI backend to whoever follows them.
//
// A reply lives in a Hub, apart from the request that asked for it: one
// goroutine (generate) appends what the backend says to the reply's log, a
// group writer saves what is new of all replies together, and any number of
// followers read the log, each with a cursor of its own. First reader, second
// tab, another replica, resume and replay of a finished reply are the same
// function, Hub.Serve.
//
// The invariant: text is an append-only log. A follower is sent the bytes of
// [cursor, end of log) in order, each once, and its cursor is the id of the
// last event it was sent; so what a client has, plus all that is sent after
// its last id, is the text as stored. Only message_reset takes text back. The voice
// of a reply that is spoken is a second such log beside the text, of pieces of
// audio, and a cursor then has a second position.
//
// The package never knows who the AI service is (a Backend), who speaks (a
// Synthesizer), what a token or a route is, or how a row is stored.
package stream
