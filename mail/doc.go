// Package mail brings messages to users: it takes what waits in the outbox of
// the database, renders it as plain text and HTML, and hands it to a mail server
// over SMTP, or to the log where a developer has no server.
//
// It never knows who asked for a message, or how: whoever changes an account
// puts a mail into the outbox in the same transaction. No address, no text and no
// link of a mail gets into the log, unless the log is where mail goes.
//
// Its invariant: a mail leaves the outbox when the server has taken it or will
// never take it. What the server has taken is sent again only if its answer was
// lost, or if the database could not be told for longer than a lease. The
// secret of a reset link exists nowhere but in the message that is being sent.
package mail
