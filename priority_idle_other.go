//go:build !linux

package main

// hasIdleClass says that there is no such thing as runIdle promises.
const hasIdleClass = false

// runIdle does nothing.
func runIdle(int) {}
