package main

import (
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"parley/auth"
)

// development is what Config holds when nothing is set.
func development() Config {
	return Config{
		Host: "127.0.0.1", Port: 8080, PublicURL: "http://127.0.0.1:8080", Env: "development",
		DatabaseURL: "sqlite://parley.db", DatabaseMaxConns: 10, MigrateOnStart: true,
		AccessTokenTTL: 15 * time.Minute, RefreshIdleTTL: 30 * 24 * time.Hour, RefreshMaxTTL: 90 * 24 * time.Hour,
		PasswordMemory: 19456, PasswordTime: 2, PasswordThreads: 1,
		AIProvider: "demo", AIFirstChunkTimeout: 30 * time.Second, AIChunkTimeout: 30 * time.Second,
		BackendHost: "localhost", BackendPort: 50051,
		DemoTokenDelay: 30 * time.Millisecond, DrainTimeout: 20 * time.Second,
	}
}

func TestSettings(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		environ []string
		want    func(*Config)
	}{
		"nothing need be set":          {nil, func(*Config) {}},
		"an empty variable is no word": {[]string{"PORT=", "ENV=", "PUBLIC_URL="}, func(*Config) {}},
		"the public address follows the listener's": {
			[]string{"HOST=::1", "PORT=9000"},
			func(c *Config) { c.Host, c.Port, c.PublicURL = "::1", 9000, "http://[::1]:9000" },
		},
		"a public address loses its last slash": {
			[]string{"PUBLIC_URL=https://chat.example.org/parley/"},
			func(c *Config) { c.PublicURL = "https://chat.example.org/parley" },
		},
		"origins are written as browsers write them": {
			[]string{"CORS_ORIGINS= https://Chat.Example.org:443 ,http://localhost:3000,capacitor://localhost,http://[::1]:80,"},
			func(c *Config) {
				c.CORSOrigins = []string{"https://chat.example.org", "http://localhost:3000", "capacitor://localhost", "http://[::1]"}
			},
		},
		"every origin may call in development": {
			[]string{"CORS_ORIGINS=*"},
			func(c *Config) { c.CORSOrigins = []string{"*"} },
		},
		"a proxy is a network or one address": {
			[]string{"TRUSTED_PROXIES=10.1.2.3/8, 192.0.2.1,2001:db8::/32,::1,::ffff:192.0.2.2"},
			func(c *Config) {
				c.TrustedProxies = []netip.Prefix{
					netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("192.0.2.1/32"),
					netip.MustParsePrefix("2001:db8::/32"), netip.MustParsePrefix("::1/128"), netip.MustParsePrefix("192.0.2.2/32"),
				}
			},
		},
		"a level's case does not matter": {
			[]string{"LOG_LEVEL=WARN", "LOG_FORMAT=json"},
			func(c *Config) { c.LogLevel, c.LogFormat = slog.LevelWarn, "json" },
		},
		"the limits may be at their edges": {
			[]string{"PORT=0", "DRAIN_TIMEOUT=0s", "DEMO_TOKEN_DELAY=0", "ACCESS_TOKEN_TTL=1s", "REFRESH_IDLE_TTL=1s", "REFRESH_MAX_TTL=1s", "PASSWORD_MEMORY_KIB=16", "PASSWORD_THREADS=2", "PASSWORD_TIME=1"},
			func(c *Config) {
				c.Port, c.PublicURL, c.DrainTimeout, c.DemoTokenDelay = 0, "http://127.0.0.1:0", 0, 0
				c.AccessTokenTTL, c.RefreshIdleTTL, c.RefreshMaxTTL = time.Second, time.Second, time.Second
				c.PasswordMemory, c.PasswordThreads, c.PasswordTime = 16, 2, 1
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := configure(test.environ, "")
			if err := c.need(); err != nil {
				t.Fatal(err)
			}
			want := development()
			test.want(&want)
			if diff := cmp.Diff(c.Config, want, cmpopts.EquateEmpty(), cmpopts.EquateComparable(netip.Prefix{})); diff != "" {
				t.Errorf("(-got +want):\n%s", diff)
			}
		})
	}
}

func TestBadSettings(t *testing.T) {
	t.Parallel()
	const makeKeys = "; make a set, (umask 077; parley keys new > keys.json), and set JWT_KEYS_FILE=keys.json"
	absent := filepath.Join(t.TempDir(), "absent")
	noPEM := filepath.Join(t.TempDir(), "ca.pem")
	writeFile(t, noPEM, "no certificate", 0o644)
	for name, test := range map[string]struct {
		environ []string
		want    []string
	}{
		"words for numbers": {
			[]string{"PORT=http", "PASSWORD_TIME=-1", "PASSWORD_THREADS=256", "AI_CONTEXT_BYTES=1e6"},
			[]string{
				`PORT: "http" is not a whole number in range; write one such as 8080`,
				`PASSWORD_TIME: "-1" is not a whole number in range; write one such as 2`,
				`PASSWORD_THREADS: "256" is not a whole number in range; write one such as 1`,
				`AI_CONTEXT_BYTES: "1e6" is not a whole number in range; write one such as 0`,
			},
		},
		"other words": {
			[]string{"MIGRATE_ON_START=perhaps", "DRAIN_TIMEOUT=20", "LOG_LEVEL=loud", "LOG_FORMAT=xml", "ENV=staging", "AI_PROVIDER=openai"},
			[]string{
				`ENV: "staging" is not known; use development or production`,
				`MIGRATE_ON_START: "perhaps" is neither true nor false`,
				`AI_PROVIDER: "openai" is not there; use grpc or demo`,
				`DRAIN_TIMEOUT: "20" is not a duration; write one such as 20s`,
				`LOG_LEVEL: "loud" is not a level; use debug, info, warn or error`,
				`LOG_FORMAT: "xml" is not a format; use json or text`,
			},
		},
		"numbers out of range": {
			[]string{
				"PORT=65536", "GRPC_AI_BACKEND_PORT=0", "DATABASE_MAX_CONNS=0", "PASSWORD_WORKERS=-1", "PASSWORD_MEMORY_KIB=15", "PASSWORD_THREADS=2",
				"AI_CONTEXT_BYTES=-1", "AI_CONTEXT_MESSAGES=-1",
			},
			[]string{
				`PORT: 65536 is not a port; use 0 to 65535`,
				`DATABASE_MAX_CONNS: 0 is too few; use 1 or more`,
				`PASSWORD_MEMORY_KIB: argon2id memory is not 8 KiB a thread to 262144 KiB`,
				`PASSWORD_WORKERS: -1 is too few; use 0 to go by the processors, or more`,
				`AI_CONTEXT_BYTES: -1 is less than nothing; use 0 for all`,
				`AI_CONTEXT_MESSAGES: -1 is less than nothing; use 0 for all`,
				`GRPC_AI_BACKEND_PORT: 0 is not a port; use 1 to 65535`,
			},
		},
		"no passes and no lanes": {
			[]string{"PASSWORD_TIME=0", "PASSWORD_THREADS=0"},
			[]string{
				`PASSWORD_TIME: argon2id time is not 1 to 32`,
				`PASSWORD_THREADS: argon2id threads are not 1 to 16`,
			},
		},
		"times that contradict each other": {
			[]string{"ACCESS_TOKEN_TTL=1h", "REFRESH_IDLE_TTL=30m", "REFRESH_MAX_TTL=20m", "AI_FIRST_CHUNK_TIMEOUT=0s", "AI_CHUNK_TIMEOUT=-1s", "DRAIN_TIMEOUT=-1s"},
			[]string{
				`REFRESH_IDLE_TTL: 30m0s is too short; use 1h0m0s or more`,
				`REFRESH_MAX_TTL: 20m0s is too short; use 30m0s or more`,
				`AI_FIRST_CHUNK_TIMEOUT: 0s is too short; use 1ms or more`,
				`AI_CHUNK_TIMEOUT: -1s is too short; use 1ms or more`,
				`DRAIN_TIMEOUT: -1s is too short; use 0s or more`,
			},
		},
		"hosts that are addresses of pages": {
			[]string{"HOST=localhost:80", "GRPC_AI_BACKEND_HOST=https://ai"},
			[]string{
				`HOST: "localhost:80" is not a host; write a name or an address without scheme and port`,
				`GRPC_AI_BACKEND_HOST: "https://ai" is not a host; write a name or an address without scheme and port`,
			},
		},
		"an origin with a path": {
			[]string{"CORS_ORIGINS=https://a.example,https://b.example/"},
			[]string{`CORS_ORIGINS: "https://b.example/" is not an origin; write scheme://host or scheme://host:port, without a path`},
		},
		"an origin with a pattern": {
			[]string{"CORS_ORIGINS=https://*.example"},
			[]string{`CORS_ORIGINS: "https://*.example" is not an origin; write scheme://host or scheme://host:port, without a path`},
		},
		"a proxy by name": {
			[]string{"TRUSTED_PROXIES=10.0.0.0/8,proxy"},
			[]string{`TRUSTED_PROXIES: "proxy" is not a network; write one such as 10.0.0.0/8, or an address`},
		},
		"another database": {
			[]string{"DATABASE_URL=mysql://root:open-sesame@db/parley"},
			[]string{
				`DATABASE_URL: is of no database that is known; write sqlite://parley.db or postgres://user:password@host/name`,
				`JWT_KEYS_FILE: is not set, and replicas on PostgreSQL must share their keys` + makeKeys,
			},
		},
		"a password that breaks the URL": {
			[]string{"DATABASE_URL=postgres://parley:open%sesame@db/parley", "JWT_KEYS=" + newKeySet(t)},
			[]string{`DATABASE_URL: is not a URL; percent-encode what is special in the user and the password`},
		},
		"no file for SQLite": {
			[]string{"DATABASE_URL=sqlite://?mode=memory"},
			[]string{`DATABASE_URL: names no file; write sqlite://parley.db, or sqlite:///var/lib/parley/parley.db, and percent-encode what is special in it`},
		},
		"PostgreSQL without keys": {
			[]string{"DATABASE_URL=postgresql://db/parley"},
			[]string{`JWT_KEYS_FILE: is not set, and replicas on PostgreSQL must share their keys` + makeKeys},
		},
		"keys twice": {
			[]string{"JWT_KEYS=" + newKeySet(t), "JWT_KEYS_FILE=keys.json"},
			[]string{`JWT_KEYS: is set, and JWT_KEYS_FILE too; give one of them`},
		},
		"keys that are none": {
			[]string{`JWT_KEYS={"keys":[{"kid":"a","kty":"OKP","alg":"none","d":"open-sesame"}]}`},
			[]string{`JWT_KEYS: key set: key 1 (kid "a"): alg is none of EdDSA, ES256, RS256, HS256`},
		},
		"keys that are not there": {
			[]string{"JWT_KEYS_FILE=" + absent},
			[]string{`JWT_KEYS_FILE: open ` + absent + `: no such file or directory`},
		},
		"production with nothing set": {
			[]string{"ENV=production"},
			[]string{
				`PUBLIC_URL: is not set, and ENV=production asks for it; give the address that clients use, such as https://chat.example.org`,
				`JWT_KEYS_FILE: is not set, and ENV=production signs with no key that was made up at start` + makeKeys,
			},
		},
		"production that is open": {
			[]string{"ENV=production", "PUBLIC_URL=http://chat.example.org", "CORS_ORIGINS=https://chat.example.org,*", "JWT_KEYS=" + newKeySet(t)},
			[]string{
				`PUBLIC_URL: "http://chat.example.org" is not https, which ENV=production asks for`,
				`CORS_ORIGINS: * lets every page on the web call the API, which ENV=production refuses; name the origins`,
			},
		},
		"a public address that is none": {
			[]string{"PUBLIC_URL=chat.example.org"},
			[]string{`PUBLIC_URL: is not an address of a service; write one such as https://chat.example.org`},
		},
		"certificates for no TLS": {
			[]string{"GRPC_AI_BACKEND_CA=" + noPEM},
			[]string{`GRPC_AI_BACKEND_CA: is set, but is of no use without GRPC_AI_BACKEND_TLS=true`},
		},
		"certificates that are none": {
			[]string{"GRPC_AI_BACKEND_CA=" + noPEM, "GRPC_AI_BACKEND_TLS=true"},
			[]string{`GRPC_AI_BACKEND_CA: ` + noPEM + ` holds no certificate in PEM`},
		},
		"a credential of the backend that no header can hold": {
			[]string{"AI_PROVIDER=grpc", "GRPC_AI_BACKEND_TOKEN=open sesame"},
			[]string{`GRPC_AI_BACKEND_TOKEN: holds a space, or what is no printable ASCII`},
		},
		"a credential of the backend in the clear": {
			[]string{"AI_PROVIDER=grpc", "GRPC_AI_BACKEND_HOST=ai.example.org", "GRPC_AI_BACKEND_TOKEN=open-sesame"},
			[]string{`GRPC_AI_BACKEND_TOKEN: would leave this machine in the clear; set GRPC_AI_BACKEND_TLS=true`},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := runParley(t, test.environ)
			want := ended{1, "", "parley: " + strings.Join(test.want, "\nparley: ") + "\n"}
			if diff := cmp.Diff(got, want); diff != "" {
				t.Errorf("(-got +want):\n%s", diff)
			}
		})
	}
}

func TestDotenv(t *testing.T) {
	t.Parallel()
	dotenv := filepath.Join(t.TempDir(), ".env")
	writeFile(t, dotenv, `# settings of mine
export PORT=9001
HOST=192.0.2.1
LOG_LEVEL=debug
GRPC_AI_BACKEND_TOKEN='a$b #c'
`, 0o600)

	c := configure([]string{"PORT=9002", "LOG_LEVEL="}, dotenv)
	if err := c.need(); err != nil {
		t.Fatal(err)
	}
	want := development()
	want.Host, want.Port, want.PublicURL, want.BackendToken = "192.0.2.1", 9002, "http://192.0.2.1:9002", "a$b #c"
	if diff := cmp.Diff(c.Config, want, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("(-got +want):\n%s", diff)
	}
	if _, set := os.LookupEnv("GRPC_AI_BACKEND_TOKEN"); set {
		t.Error("the file has got into the environment of the process")
	}

	got := make(map[string]string)
	for _, s := range settings() {
		if from := c.from(s); from != "default" {
			got[s.name] = from
		}
	}
	if diff := cmp.Diff(got, map[string]string{"PORT": "environment", "HOST": ".env", "GRPC_AI_BACKEND_TOKEN": ".env"}); diff != "" {
		t.Errorf("where settings come from (-got +want):\n%s", diff)
	}
}

func TestDotenvThatIsNone(t *testing.T) {
	t.Parallel()
	dotenv := filepath.Join(t.TempDir(), ".env")
	writeFile(t, dotenv, "PORT=9001\nGRPC_AI_BACKEND_TOKEN='open-sesame\n", 0o600)
	got := configure([]string{"HOST=a b"}, dotenv).need("PORT")
	want := dotenv + ": is not a file of settings; write one NAME=value a line, and put a value with spaces, #, $ or quotes into single quotes"
	if got == nil || got.Error() != want {
		t.Errorf("got %v, want %s", got, want)
	}
	if err := configure(nil, filepath.Dir(dotenv)).need(); err == nil {
		t.Error("a folder as .env: got no error")
	}
}

func TestConfigHidesSecrets(t *testing.T) {
	t.Parallel()
	got := runParley(t, []string{
		"DATABASE_URL=postgres://parley:open-sesame@db:5432/parley?sslmode=require&sslpassword=open-sesame",
		"JWT_KEYS=open-sesame", "GRPC_AI_BACKEND_TOKEN=open-sesame", "AI_MODEL=two\nlines", "PORT=80a",
	}, "config")
	if strings.Contains(got.Stdout+got.Stderr, "open-sesame") {
		t.Errorf("a secret is shown:\n%s%s", got.Stdout, got.Stderr)
	}
	if got.Code != 1 || strings.Count(got.Stderr, "\n") != 2 { // PORT, JWT_KEYS
		t.Errorf("got code %d, stderr %s", got.Code, got.Stderr)
	}
	rows := make(map[string]string)
	for line := range strings.Lines(got.Stdout) {
		name, rest, _ := strings.Cut(line, " ")
		rows[name] = strings.Join(strings.Fields(rest), " ")
	}
	if len(rows) != len(settings())+1 {
		t.Errorf("got %d lines, want one for each of %d settings and a heading", len(rows), len(settings()))
	}
	for name, want := range map[string]string{
		"DATABASE_URL":          "postgres://parley:xxxxx@db:5432/parley?sslmode=require&sslpassword=xxxxx environment",
		"JWT_KEYS":              "(hidden) environment",
		"GRPC_AI_BACKEND_TOKEN": "(hidden) environment",
		"AI_MODEL":              `"two\nlines" environment`,
		"PORT":                  "80a environment",
		"HOST":                  "127.0.0.1 default",
		"CORS_ORIGINS":          "(empty) default",
		"LOG_FORMAT":            "(text on a terminal, else json) default",
	} {
		if rows[name] != want {
			t.Errorf("%s: got %q, want %q", name, rows[name], want)
		}
	}
}

func TestSettingsAreDescribedOnce(t *testing.T) {
	t.Parallel()
	seen := make(map[string]bool)
	for _, s := range settings() {
		if s.name == "" || s.desc == "" || seen[s.name] || strings.Contains(s.desc+s.absent, "|") {
			t.Errorf("%s: has no name or meaning of its own, or one that breaks a table: %+v", s.field, s)
		}
		seen[s.name] = true
	}
	got := runParley(t, nil, "config", "--markdown")
	if got.Code != 0 || !strings.Contains(got.Stdout, "\n| `DRAIN_TIMEOUT` | `20s` | how long ") || strings.Count(got.Stdout, "\n") != len(seen)+2 {
		t.Errorf("got %+v", got)
	}
}

func TestOpenURL(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ given, want string }{
		"PostgreSQL is given the limit": {"postgres://u:p%40@db/x?sslmode=disable", "postgres://u:p%40@db/x?pool_max_conns=7&sslmode=disable"},
		"a limit in the URL stands":     {"postgres://db/x?pool_max_conns=3", "postgres://db/x?pool_max_conns=3"},
		"SQLite has no such limit":      {"sqlite://parley.db", "sqlite://parley.db"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := Config{DatabaseURL: test.given, DatabaseMaxConns: 7}
			if got := c.openURL(); got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
}

func FuzzParseOrigin(f *testing.F) {
	for _, s := range []string{"https://a.example", "http://[::1]:8080", "*", "https://a@b", "https://a?", "https://a#", "null", "https://"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		origin, err := parseOrigin(s)
		if err != nil {
			return
		}
		if again, err := parseOrigin(origin); err != nil || again != origin {
			t.Errorf("%q gives %q, which gives %q, %v", s, origin, again, err)
		}
	})
}

func newKeySet(t *testing.T) string {
	t.Helper()
	set, err := auth.GenerateKeySet()
	if err != nil {
		t.Fatal(err)
	}
	return string(set)
}

func writeFile(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}
