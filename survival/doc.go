// Package survival is Parley seen from outside on its bad days. It has nothing
// but tests: they build the program, run one or several replicas of it on one
// database, and cut, freeze, stop and kill what runs, as networks, deploys and
// accidents do.
//
// It never knows how the program keeps what it promises. It knows a binary and
// its settings, HTTP as the contract has it, and the gRPC interface of the AI
// backend, which it plays itself: a backend that says a text that follows from
// the message, and counts how often it is asked.
//
// The invariant: whatever is done to the program, a client that only comes back
// with its last event id has in the end the stored text, byte for byte, and the
// stored text is what the backend said.
//
// What runs with all other tests is a short form of it. The long one is for the
// night:
//
//	go test -timeout=4h ./survival -cuts=100000 -kills=2000 -outage=20s -stuck=500
//
// A test that fails tells its seed; -seed makes it choose the same again.
package survival
