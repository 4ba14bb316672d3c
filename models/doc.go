// Package models says what Parley keeps (accounts, device sessions, quotas, mails
// on their way, the audit, chats, messages, running replies) and holds the only
// SQL of the program. It speaks to SQLite and to PostgreSQL through the same
// methods.
//
// It never knows about HTTP, tokens or the AI service, and reads no
// environment: what it is told comes in as arguments.
//
// Its invariant: every exported method is one atomic step. It has happened
// whole or not at all, whatever else runs at the same time on other replicas,
// and a row that several callers race for has one winner.
package models
