package handlers

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// clientAddr returns the address of the client: the peer's, or if the peer is
// a trusted proxy the rightmost hop of X-Forwarded-For that is none. What
// stands to the left of that hop is only what the client claims. It is the
// zero Addr for a peer without an IP address. IPv4 is never mapped into IPv6,
// and an address has no zone.
func clientAddr(peer string, forwardedFor []string, trusted []netip.Prefix) netip.Addr {
	addr, ok := parseHop(peer)
	if !ok {
		return netip.Addr{}
	}
	isTrusted := func(a netip.Addr) bool {
		return slices.ContainsFunc(trusted, func(p netip.Prefix) bool { return p.Contains(a) })
	}
	rest := strings.Join(forwardedFor, ",")
	for isTrusted(addr) && rest != "" {
		i := strings.LastIndexByte(rest, ',')
		hop, ok := parseHop(strings.Trim(rest[i+1:], " \t"))
		if !ok {
			break // the last hop that is known for sure
		}
		addr, rest = hop, rest[:max(i, 0)]
	}
	return addr
}

// parseHop reads an IP address, with or without a port; IPv6 in brackets or not.
func parseHop(s string) (netip.Addr, bool) {
	addr, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(s, "["), "]"))
	if err != nil {
		withPort, err := netip.ParseAddrPort(s)
		if err != nil {
			return netip.Addr{}, false
		}
		addr = withPort.Addr()
	}
	return addr.Unmap().WithZone(""), true
}

// maxDeviceName is the longest name of a device, in characters.
const maxDeviceName = 200

// deviceName is what a device session is called until somebody names it: the
// User-Agent, without what is not for the eye.
func deviceName(h http.Header) string {
	name := strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(h.Get("User-Agent"), ""))
	name = strings.TrimSpace(name)
	if name == "" {
		return "Unknown device"
	}
	return strings.TrimSpace(firstRunes(name, maxDeviceName))
}

// firstRunes cuts s after n characters.
func firstRunes(s string, n int) string {
	for i := range s {
		if n == 0 {
			return s[:i]
		}
		n--
	}
	return s
}
