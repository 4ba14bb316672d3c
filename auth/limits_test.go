package auth_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"parley/auth"
)

func TestParseLimit(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		text string
		want auth.Limit
	}{
		"a number of minutes":   {"10/15m", auth.Limit{Quota: 10, Window: 15 * time.Minute}},
		"one in an hour":        {"1/1h", auth.Limit{Quota: 1, Window: time.Hour}},
		"several units":         {"3/1h30m", auth.Limit{Quota: 3, Window: 90 * time.Minute}},
		"the largest":           {"1000000/720h", auth.Limit{Quota: 1_000_000, Window: 720 * time.Hour}},
		"the shortest":          {"1000000/1s", auth.Limit{Quota: 1_000_000, Window: time.Second}},
		"none":                  {"off", auth.Limit{}},
		"a part of a second":    {"1/1.5s", auth.Limit{Quota: 1, Window: 1500 * time.Millisecond}},
		"minutes as of seconds": {"60/60s", auth.Limit{Quota: 60, Window: time.Minute}},
	} {
		if got, err := auth.ParseLimit(tt.text); err != nil || got != tt.want {
			t.Errorf("%s: got %+v, %v; want %+v", name, got, err, tt.want)
		}
	}
}

func TestParseLimitSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	const number = ` is no limit; write a number from 1 to 1000000, a slash and a duration, such as 10/15m, or off`
	const duration = ` has no duration from 1s to 720h behind the slash; write one such as 10/15m`
	for name, tt := range map[string]struct{ text, want string }{
		"nothing":              {"", number},
		"a number alone":       {"10", number},
		"a duration alone":     {"15m", number},
		"no number":            {"/15m", number},
		"none at all":          {"0/15m", number},
		"less than none":       {"-1/15m", number},
		"a sign":               {"+1/15m", number},
		"a leading zero":       {"010/15m", number},
		"too many":             {"1000001/15m", number},
		"beyond 64 bits":       {"9223372036854775808/15m", number},
		"off in another case":  {"OFF", number},
		"a space":              {"10 /15m", number},
		"no duration":          {"10/", duration},
		"a unit alone":         {"10/m", duration},
		"seconds without unit": {"10/60", duration},
		"days":                 {"10/1d", duration},
		"no time":              {"10/0s", duration},
		"a moment":             {"10/999ms", duration},
		"too long":             {"10/721h", duration},
		"two slashes":          {"10/15m/2", duration},
	} {
		got, err := auth.ParseLimit(tt.text)
		if err == nil || err.Error() != `"`+tt.text+`"`+tt.want || got != (auth.Limit{}) {
			t.Errorf("%s: got %+v, %v; want %q", name, got, err, tt.want)
		}
	}
}

func FuzzParseLimit(f *testing.F) {
	for _, s := range []string{"10/15m", "off", "1/1h2m3s", "1/-1s", "/", "1/1e9s", "1/9223372036854775807ns"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := auth.ParseLimit(s)
		if err != nil {
			return
		}
		if s == "off" {
			if got != (auth.Limit{}) {
				t.Errorf("got %+v", got)
			}
			return
		}
		// Hits are counted in microseconds: no limit is finer.
		if got.Quota < 1 || got.Window < time.Second || got.Window/time.Duration(got.Quota) < time.Microsecond {
			t.Errorf("read %+v from %q", got, s)
		}
		if quota, _, _ := strings.Cut(s, "/"); strings.TrimLeft(quota, "0123456789") != "" {
			t.Errorf("took %q", s)
		}
	})
}

// The networks of IPv6 are those of RFC 4291 §2.5.4 and RFC 6177; the
// addresses those of RFC 3849 and RFC 5737.
func TestNetwork(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ addr, want string }{
		"IPv4":                  {"192.0.2.77", "192.0.2.77/32"},
		"IPv4 within IPv6":      {"::ffff:192.0.2.77", "192.0.2.77/32"},
		"a private address":     {"10.1.2.3", "10.1.2.3/32"},
		"IPv6":                  {"2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"},
		"its neighbour":         {"2001:db8:1:2:ffff:ffff:ffff:ffff", "2001:db8:1:2::/64"},
		"the next network":      {"2001:db8:1:3::", "2001:db8:1:3::/64"},
		"IPv6 with a zone":      {"fe80::1%eth0", "fe80::/64"},
		"loopback":              {"127.0.0.1", "invalid Prefix"},
		"all of loopback":       {"127.8.9.10", "invalid Prefix"},
		"loopback of IPv6":      {"::1", "invalid Prefix"},
		"loopback within IPv6":  {"::ffff:127.0.0.1", "invalid Prefix"},
		"nearly loopback":       {"128.0.0.1", "128.0.0.1/32"},
		"nearly that of IPv6":   {"::2", "::/64"},
		"the unspecified":       {"0.0.0.0", "0.0.0.0/32"},
		"IPv4 with a mapped /8": {"::ffff:10.0.0.1", "10.0.0.1/32"},
	} {
		if got := auth.Network(netip.MustParseAddr(tt.addr)).String(); got != tt.want {
			t.Errorf("%s: got %s, want %s", name, got, tt.want)
		}
	}
	if got := auth.Network(netip.Addr{}); got.IsValid() {
		t.Errorf("no address: got %v", got)
	}
}
