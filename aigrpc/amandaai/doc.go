// Package amandaai is the AI backend's gRPC interface, amanda.ai: the .proto
// file and the Go code generated from it. It knows nothing but that file; what
// is generated is never edited.
package amandaai

//go:generate sh generate.sh
