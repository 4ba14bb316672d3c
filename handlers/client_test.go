package handlers_test

import (
	"net/netip"
	"strings"
	"testing"

	"parley/handlers"
)

func TestClientAddr(t *testing.T) {
	t.Parallel()
	trusted := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}
	for name, tt := range map[string]struct {
		peer      string
		forwarded []string
		want      string
	}{
		"a peer without headers is the client":                      {"192.0.2.1:4711", nil, "192.0.2.1"},
		"a peer that is no proxy may claim nothing":                 {"192.0.2.1:4711", []string{"198.51.100.7"}, "192.0.2.1"},
		"a trusted proxy says who called":                           {"10.0.0.1:4711", []string{"198.51.100.7"}, "198.51.100.7"},
		"what the client claimed stands further left":               {"10.0.0.1:4711", []string{"1.1.1.1, 198.51.100.7"}, "198.51.100.7"},
		"trusted hops are passed over":                              {"10.0.0.1:4711", []string{"198.51.100.7, 10.9.9.9"}, "198.51.100.7"},
		"several headers are one list":                              {"10.0.0.1:4711", []string{"1.1.1.1", "198.51.100.7,10.2.2.2"}, "198.51.100.7"},
		"when all are trusted the first is the client":              {"10.0.0.1:4711", []string{"10.3.3.3, 10.2.2.2"}, "10.3.3.3"},
		"a hop that is no address ends the search":                  {"10.0.0.1:4711", []string{"198.51.100.7, unknown, 10.2.2.2"}, "10.2.2.2"},
		"garbage alone leaves the proxy":                            {"10.0.0.1:4711", []string{"\x00;drop"}, "10.0.0.1"},
		"an empty header leaves the proxy":                          {"10.0.0.1:4711", []string{""}, "10.0.0.1"},
		"IPv4 with a port":                                          {"10.0.0.1:4711", []string{"198.51.100.7:80"}, "198.51.100.7"},
		"IPv6 bare":                                                 {"[fd00::1]:4711", []string{"2001:db8::7"}, "2001:db8::7"},
		"IPv6 in brackets":                                          {"[fd00::1]:4711", []string{"[2001:db8::7]"}, "2001:db8::7"},
		"IPv6 with a port":                                          {"[fd00::1]:4711", []string{"[2001:db8::7]:443"}, "2001:db8::7"},
		"IPv6 with a zone":                                          {"[fe80::1%eth0]:4711", nil, "fe80::1"},
		"a zone does not keep a proxy from being trusted":           {"[fd00::1%eth0]:4711", []string{"198.51.100.7"}, "198.51.100.7"},
		"IPv4 mapped into IPv6 is IPv4":                             {"[::ffff:10.0.0.1]:4711", []string{"::ffff:198.51.100.7"}, "198.51.100.7"},
		"a Unix socket has no address, and is nobody to be trusted": {"@", []string{"198.51.100.7"}, "invalid IP"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := handlers.ClientAddr(tt.peer, tt.forwarded, trusted).String(); got != tt.want {
				t.Errorf("client is %s, want %s", got, tt.want)
			}
		})
	}
}

// Whatever the headers hold, the answer is an address that stands in them or
// the peer's, and a peer that is not trusted is always the client.
func FuzzClientAddr(f *testing.F) {
	f.Add("10.0.0.1:1", "198.51.100.7, 10.2.2.2")
	f.Add("[fd00::1%eth0]:1", "[2001:db8::7]:443,,unknown")
	f.Add("192.0.2.1:1", "10.0.0.1")
	f.Add("@", "[[::]]")
	trusted := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}
	f.Fuzz(func(t *testing.T, peer, forwarded string) {
		got := handlers.ClientAddr(peer, strings.Split(forwarded, "\n"), trusted)
		alone := handlers.ClientAddr(peer, nil, trusted)
		if got.IsValid() != alone.IsValid() {
			t.Fatalf("client is %v, peer is %v", got, alone)
		}
		if got.Zone() != "" || got.Is4In6() {
			t.Errorf("client is %v, want neither a zone nor a mapped address", got)
		}
		if !trusted[0].Contains(alone) && !trusted[1].Contains(alone) && got != alone {
			t.Errorf("client is %v, want the peer %v, which is no proxy", got, alone)
		}
	})
}
