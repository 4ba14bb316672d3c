//go:build !unix

package main

import "syscall"

// giveWay does nothing: there is no such priority.
func giveWay() {}

// ownGroup does nothing: there are no such groups.
func ownGroup() *syscall.SysProcAttr { return nil }
