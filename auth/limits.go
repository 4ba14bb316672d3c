package auth

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// What a limit may say. The quota is such that each window can be divided by it
// in microseconds, which is how hits are counted.
const (
	maxQuota  = 1_000_000
	minWindow = time.Second
	maxWindow = 30 * 24 * time.Hour
)

// A Limit is how often something may happen: Quota times in a Window. A Quota
// of 0 is no limit.
type Limit struct {
	Quota  int64
	Window time.Duration
}

// ParseLimit reads a limit as an operator writes it: "10/15m" is ten times in a
// quarter of an hour, and "off" no limit. The window is a duration as
// [time.ParseDuration] reads it, from 1s to 720h, and the quota is 1 to
// 1,000,000. The error is a sentence that holds s.
func ParseLimit(s string) (Limit, error) {
	if s == "off" {
		return Limit{}, nil
	}
	quota, window, found := strings.Cut(s, "/")
	n, err := strconv.ParseInt(quota, 10, 64)
	if !found || err != nil || n < 1 || n > maxQuota || strconv.FormatInt(n, 10) != quota {
		return Limit{}, fmt.Errorf("%q is no limit; write a number from 1 to %d, a slash and a duration, such as 10/15m, or off", s, maxQuota)
	}
	d, err := time.ParseDuration(window)
	if err != nil || d < minWindow || d > maxWindow {
		return Limit{}, fmt.Errorf("%q has no duration from 1s to 720h behind the slash; write one such as 10/15m", s)
	}
	return Limit{Quota: n, Window: d}, nil
}

// networkBits is how much of an IPv6 address names the network that one
// customer of a provider has: within a /64 everybody chooses addresses freely
// (RFC 4291 §2.5.1).
const networkBits = 64

// Network returns what an address is counted by: the IPv4 address alone, the
// IPv6 address's /64. It is the invalid Prefix for a loopback address and for
// the invalid Addr: whoever comes from there is the operator, or everybody
// behind a proxy that is not told of, and neither is a network to throttle.
func Network(a netip.Addr) netip.Prefix {
	a = a.Unmap()
	if !a.IsValid() || a.IsLoopback() {
		return netip.Prefix{}
	}
	network, _ := a.WithZone("").Prefix(min(a.BitLen(), networkBits)) // neither is out of range
	return network
}
