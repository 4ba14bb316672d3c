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
		Host: "127.0.0.1", Port: 8080, PublicURL: "http://127.0.0.1:8080", Console: true, Env: "development",
		DatabaseURL: "sqlite://parley.db", DatabaseMaxConns: 10, MigrateOnStart: true,
		AccessTokenTTL: 15 * time.Minute, RefreshIdleTTL: 30 * 24 * time.Hour, RefreshMaxTTL: 90 * 24 * time.Hour,
		PasswordMemory: 19456, PasswordTime: 2, PasswordThreads: 1,
		MaxConnections:           10000,
		LimitLoginAccount:        auth.Limit{Quota: 100, Window: time.Hour},
		LimitLoginAccountNetwork: auth.Limit{Quota: 10, Window: 15 * time.Minute},
		LimitLoginNetwork:        auth.Limit{Quota: 300, Window: 15 * time.Minute},
		LimitResetMails:          auth.Limit{Quota: 3, Window: time.Hour},
		LimitResetRequests:       auth.Limit{Quota: 30, Window: time.Hour},
		AuditKeep:                365 * 24 * time.Hour,
		AIProvider:               "demo", AIFirstChunkTimeout: 30 * time.Second, AIChunkTimeout: 30 * time.Second,
		BackendHost: "localhost", BackendPort: 50051, AIServicePort: 50051,
		VoiceFirstTimeout: time.Minute, VoiceChunkTimeout: 30 * time.Second, OpenAITranscribeModel: "whisper-1", OpenAISpeechModel: "gpt-4o-mini-tts",
		DemoTokenDelay: 30 * time.Millisecond, DrainTimeout: 20 * time.Second,
		OTelService: "parley", OTelSampler: "parentbased_always_on", OTelSamplerRate: 1,
	}
}

func TestSettings(t *testing.T) {
	t.Parallel()
	keys := filepath.Join(t.TempDir(), "keys.json")
	writeFile(t, keys, newKeySet(t), 0o600)
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
		"a public address has its scheme in lower case, by which browsers are told that it is safe": {
			[]string{"PUBLIC_URL=HTTPS://Chat.example.org:8443"},
			func(c *Config) { c.PublicURL = "https://Chat.example.org:8443" },
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
		"in production clients are held back more": {
			[]string{"ENV=production", "PUBLIC_URL=https://chat.example.org", "JWT_KEYS_FILE=" + keys, "SMTP_URL=smtps://smtp.example.org", "MAIL_FROM=no-reply@example.org"},
			func(c *Config) {
				c.Env, c.PublicURL, c.JWTKeysFile = "production", "https://chat.example.org", keys
				c.SMTPURL, c.MailFrom = "smtps://smtp.example.org", "no-reply@example.org"
				c.LimitSignups, c.LimitMessages, c.LimitStreams = auth.Limit{Quota: 100, Window: time.Hour}, auth.Limit{Quota: 60, Window: time.Minute}, 200
			},
		},
		"there too they are held back as it is set": {
			[]string{
				"ENV=production", "PUBLIC_URL=https://chat.example.org", "JWT_KEYS_FILE=" + keys, "SMTP_URL=smtp://a%40b:c%2Fd@smtp.example.org:25", "MAIL_FROM=Parley <no-reply@example.org>",
				"LIMIT_LOGIN_ACCOUNT=off", "LIMIT_LOGIN_ACCOUNT_NETWORK=1/1s", "LIMIT_LOGIN_NETWORK=2/2s", "LIMIT_SIGNUPS=off", "LIMIT_RESET_MAILS=4/4h",
				"LIMIT_RESET_REQUESTS=off", "LIMIT_MESSAGES=5/5m", "LIMIT_STREAMS=0", "AUDIT_KEEP=24h",
			},
			func(c *Config) {
				c.Env, c.PublicURL, c.JWTKeysFile = "production", "https://chat.example.org", keys
				c.SMTPURL, c.MailFrom = "smtp://a%40b:c%2Fd@smtp.example.org:25", "Parley <no-reply@example.org>"
				c.LimitLoginAccount, c.LimitLoginAccountNetwork = auth.Limit{}, auth.Limit{Quota: 1, Window: time.Second}
				c.LimitLoginNetwork, c.LimitResetMails = auth.Limit{Quota: 2, Window: 2 * time.Second}, auth.Limit{Quota: 4, Window: 4 * time.Hour}
				c.LimitResetRequests, c.LimitMessages, c.AuditKeep = auth.Limit{}, auth.Limit{Quota: 5, Window: 5 * time.Minute}, 24*time.Hour
			},
		},
		"a day may hold one answer": {
			[]string{"DAILY_TOKEN_LIMIT=501", "AI_MAX_TOKENS=500", "AI_TITLES=true"},
			func(c *Config) { c.DailyTokenLimit, c.AIMaxTokens, c.AITitles = 501, 500, true },
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
			[]string{"MIGRATE_ON_START=perhaps", "DRAIN_TIMEOUT=20", "LOG_LEVEL=loud", "LOG_FORMAT=xml", "ENV=staging", "AI_PROVIDER=watson"},
			[]string{
				`ENV: "staging" is not known; use development or production`,
				`MIGRATE_ON_START: "perhaps" is neither true nor false`,
				`AI_PROVIDER: "watson" is not there; use demo, openai, gemini or grpc`,
				`DRAIN_TIMEOUT: "20" is not a duration; write one such as 20s`,
				`LOG_LEVEL: "loud" is not a level; use debug, info, warn or error`,
				`LOG_FORMAT: "xml" is not a format; use json or text`,
			},
		},
		"a certificate without its key": {
			[]string{"TLS_CERT=" + noPEM},
			[]string{`TLS_KEY: is not set, and TLS_CERT is; give both or neither`},
		},
		"a key without its certificate": {
			[]string{"TLS_KEY=" + noPEM},
			[]string{`TLS_CERT: is not set, and TLS_KEY is; give both or neither`},
		},
		"a certificate that is not there": {
			[]string{"TLS_CERT=" + absent, "TLS_KEY=" + absent},
			[]string{`TLS_CERT: open ` + absent + `: no such file or directory`},
		},
		"a certificate that is none": {
			[]string{"TLS_CERT=" + noPEM, "TLS_KEY=" + noPEM},
			[]string{`TLS_CERT: ` + noPEM + ` and ` + noPEM + `: tls: failed to find any PEM data in certificate input`},
		},
		"fewer connections than none": {
			[]string{"MAX_CONNECTIONS=-1"},
			[]string{`MAX_CONNECTIONS: -1 is less than nothing; use 0 for any number, or more`},
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
				`SMTP_URL: is not set, and ENV=production writes no mail to the log; give the mail server, such as smtp://user:password@smtp.example.org:587`,
			},
		},
		"production that is open": {
			[]string{"ENV=production", "PUBLIC_URL=http://chat.example.org", "CORS_ORIGINS=https://chat.example.org,*", "JWT_KEYS=" + newKeySet(t)},
			[]string{
				`PUBLIC_URL: "http://chat.example.org" is not https, which ENV=production asks for`,
				`CORS_ORIGINS: * lets every page on the web call the API, which ENV=production refuses; name the origins`,
				`SMTP_URL: is not set, and ENV=production writes no mail to the log; give the mail server, such as smtp://user:password@smtp.example.org:587`,
			},
		},
		"a public address that is none": {
			[]string{"PUBLIC_URL=chat.example.org"},
			[]string{`PUBLIC_URL: is not an address of a service; write one such as https://chat.example.org`},
		},
		"a public address without a name": {
			[]string{"PUBLIC_URL=https://:8443"},
			[]string{`PUBLIC_URL: is not an address of a service; write one such as https://chat.example.org`},
		},
		"a public address with a port that is none": {
			[]string{"PUBLIC_URL=https://chat.example.org:99999"},
			[]string{`PUBLIC_URL: is not an address of a service; write one such as https://chat.example.org`},
		},
		"a public address in other letters than ASCII": {
			[]string{"PUBLIC_URL=https://bücher.example"},
			[]string{`PUBLIC_URL: is not an address of a service; write one such as https://chat.example.org`},
		},
		"a public address with a query, though it is empty": {
			[]string{"PUBLIC_URL=https://chat.example.org?"},
			[]string{`PUBLIC_URL: is not an address of a service; write one such as https://chat.example.org`},
		},
		"a public address with a fragment, though it is empty": {
			[]string{"PUBLIC_URL=https://chat.example.org/#"},
			[]string{`PUBLIC_URL: is not an address of a service; write one such as https://chat.example.org`},
		},
		"more processes than a machine has room for": {
			[]string{"PASSWORD_WORKERS=1001"},
			[]string{`PASSWORD_WORKERS: 1001 is too many; use 0 to go by the processors, or 1000 at the most`},
		},
		"limits that are none": {
			[]string{"LIMIT_SIGNUPS=100", "LIMIT_LOGIN_ACCOUNT=10/15", "LIMIT_MESSAGES=many/1h", "LIMIT_STREAMS=off"},
			[]string{
				`LIMIT_LOGIN_ACCOUNT: "10/15" has no duration from 1s to 720h behind the slash; write one such as 10/15m`,
				`LIMIT_SIGNUPS: "100" is no limit; write a number from 1 to 1000000, a slash and a duration, such as 10/15m, or off`,
				`LIMIT_MESSAGES: "many/1h" is no limit; write a number from 1 to 1000000, a slash and a duration, such as 10/15m, or off`,
				`LIMIT_STREAMS: "off" is not a whole number in range; write one such as 0`,
			},
		},
		"fewer streams than none, and an audit that forgets": {
			[]string{"LIMIT_STREAMS=-1", "AUDIT_KEEP=1h", "DAILY_TOKEN_LIMIT=1024"},
			[]string{
				`DAILY_TOKEN_LIMIT: 1024 is too few for a message and its answer, for which alone 1024 are set aside; use more, or 0 for any number`,
				`LIMIT_STREAMS: -1 is less than nothing; use 0 for any number, or more`,
				`AUDIT_KEEP: 1h0m0s is too short; use 24h0m0s or more`,
			},
		},
		"an administrator's address without a password": {
			[]string{"ADMIN_EMAIL=root@example.org"},
			[]string{`ADMIN_PASSWORD: is not set, and ADMIN_EMAIL is; give both or neither`},
		},
		"an administrator's password without an address": {
			[]string{"ADMIN_PASSWORD=correct horse battery"},
			[]string{`ADMIN_EMAIL: is not set, and ADMIN_PASSWORD is; give both or neither`},
		},
		"an administrator's address that is none": {
			[]string{"ADMIN_EMAIL=root", "ADMIN_PASSWORD=correct horse battery"},
			[]string{`ADMIN_EMAIL: "root" is not a mail address; write one such as admin@example.org`},
		},
		"an administrator of whom nothing is right": {
			[]string{"ADMIN_EMAIL=root", "ADMIN_PASSWORD=x7#kq"},
			[]string{
				`ADMIN_EMAIL: "root" is not a mail address; write one such as admin@example.org`,
				`ADMIN_PASSWORD: The password needs at least 8 characters.`,
			},
		},
		"an address of the metrics that is none": {
			[]string{"METRICS_ADDR=9090"},
			[]string{`METRICS_ADDR: "9090" is not an address to listen on; write one such as 127.0.0.1:9090, or :9090`},
		},
		"an address of the metrics with a port that is none": {
			[]string{"METRICS_ADDR=:metrics"},
			[]string{`METRICS_ADDR: ":metrics" is not an address to listen on; write one such as 127.0.0.1:9090, or :9090`},
		},
		"metrics on the port of all else": {
			[]string{"METRICS_ADDR=:8080"},
			[]string{`METRICS_ADDR: ":8080" is where all else is; give another port, or leave it empty`},
		},
		"traces that cannot be sent": {
			[]string{
				"OTEL_EXPORTER_OTLP_ENDPOINT=user:secret@collector:4318", "OTEL_EXPORTER_OTLP_HEADERS=secret", "OTEL_TRACES_SAMPLER=some",
				"OTEL_TRACES_SAMPLER_ARG=NaN",
			},
			[]string{
				`OTEL_EXPORTER_OTLP_ENDPOINT: is not the base URL of a collector; write one such as http://localhost:4318`,
				`OTEL_EXPORTER_OTLP_HEADERS: is not a list of name=value with commas between; percent-encode what is special in a value`,
				`OTEL_TRACES_SAMPLER: "some" is not known; use one of parentbased_always_on, parentbased_always_off, parentbased_traceidratio, always_on, always_off, traceidratio`,
				`OTEL_TRACES_SAMPLER_ARG: NaN is not from 0 to 1`,
			},
		},
		"an administrator's password that is too short": {
			[]string{"ADMIN_EMAIL=root@example.org", "ADMIN_PASSWORD=x7#kq"},
			[]string{`ADMIN_PASSWORD: The password needs at least 8 characters.`},
		},
		"a mail server without a sender": {
			[]string{"SMTP_URL=smtp://localhost"},
			[]string{`MAIL_FROM: is not set, and SMTP_URL asks for it; give the address that mail comes from, such as Parley <no-reply@example.org>`},
		},
		"a sender that is no address": {
			[]string{"SMTP_URL=smtp://localhost", "MAIL_FROM=no-reply"},
			[]string{`MAIL_FROM: "no-reply" is not a mail address; write one such as Parley <no-reply@example.org>`},
		},
		"a sender with a header behind it": {
			[]string{"MAIL_FROM=a@example.org\r\nBcc: b@example.org"},
			[]string{`MAIL_FROM: "a@example.org\r\nBcc: b@example.org" is not a mail address; write one such as Parley <no-reply@example.org>`},
		},
		"a mail password that breaks the URL": {
			[]string{"SMTP_URL=smtp://parley:open%sesame@smtp.example.org", "MAIL_FROM=a@example.org"},
			[]string{`SMTP_URL: is not a URL; percent-encode what is special in the user and the password`},
		},
		"a mail user without a password": {
			[]string{"SMTP_URL=smtp://parley@smtp.example.org", "MAIL_FROM=a@example.org"},
			[]string{`SMTP_URL: has a user without a password, or the other way round; give both or neither`},
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

func TestNoMailServer(t *testing.T) {
	t.Parallel()
	for name, server := range map[string]string{
		"another protocol":      "http://parley:open-sesame@smtp.example.org",
		"no scheme":             "smtp.example.org:587",
		"no host":               "smtp://:587",
		"no host but a user":    "smtps://parley:open-sesame@",
		"a path":                "smtp://smtp.example.org/open-sesame",
		"a query":               "smtp://smtp.example.org?password=open-sesame",
		"a fragment":            "smtp://smtp.example.org#open-sesame",
		"a port out of range":   "smtp://smtp.example.org:65536",
		"port 0":                "smtp://smtp.example.org:0",
		"nothing but a scheme":  "smtp:",
		"a scheme without host": "smtp:open-sesame",
	} {
		want := "is not a mail server; write smtp://user:password@smtp.example.org:587, or smtps://, and nothing behind the port"
		c := configure([]string{"SMTP_URL=" + server, "MAIL_FROM=a@example.org"}, "")
		if got := c.need("SMTP_URL"); got == nil || got.Error() != "SMTP_URL: "+want {
			t.Errorf("%s: got %v, want %s", name, got, want)
		}
	}
}

func TestConfigHidesSecrets(t *testing.T) {
	t.Parallel()
	got := runParley(t, []string{
		"DATABASE_URL=postgres://parley:open-sesame@db:5432/parley?sslmode=require&sslpassword=open-sesame",
		"SMTP_URL=smtp://parley:open-sesame@smtp.example.org:587", "MAIL_FROM=a@example.org", "LIMIT_SIGNUPS=7/1h",
		"OPENAI_BASE_URL=https://models.example.org/v1?api-key=open-sesame&v=1", "GEMINI_BASE_URL=https://models.example.org/?key=open-sesame",
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
		"SMTP_URL":              "smtp://parley:xxxxx@smtp.example.org:587 environment",
		"OPENAI_BASE_URL":       "https://models.example.org/v1?api-key=xxxxx&v=1 environment",
		"GEMINI_BASE_URL":       "https://models.example.org/?key=xxxxx environment",
		"LIMIT_SIGNUPS":         "7/1h environment",
		"LIMIT_MESSAGES":        "off default",
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

func TestConfigShowsTheDefaultsOfProduction(t *testing.T) {
	t.Parallel()
	got := runParley(t, []string{"ENV=production"}, "config").Stdout
	for _, want := range []string{"LIMIT_MESSAGES 60/1m default", "LIMIT_STREAMS 200 default", "LIMIT_RESET_MAILS 3/1h default"} {
		if words := strings.Join(strings.Fields(got), " "); !strings.Contains(words, want) {
			t.Errorf("got %s, want %s in it", words, want)
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
	if got.Code != 0 || !strings.Contains(got.Stdout, "\n| `DRAIN_TIMEOUT` | `20s` | how long ") ||
		!strings.Contains(got.Stdout, "\n| `LIMIT_SIGNUPS` | `off`; in production `100/1h` | ") || strings.Count(got.Stdout, "\n") != len(seen)+2 {
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

func TestSettingsOfProviders(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		environ, want []string
	}{
		"a voice that is not there": {
			[]string{"VOICE_PROVIDER=watson", "VOICE_LOCAL_CALLS=-1", "VOICE_CHUNK_TIMEOUT=0s"},
			[]string{
				`VOICE_PROVIDER: "watson" is not there; use grpc, openai, local or none`,
				`VOICE_LOCAL_CALLS: -1 is less than nothing; use 0 to go by the processors, or more`,
				`VOICE_CHUNK_TIMEOUT: 0s is too short; use 1ms or more`,
			},
		},
		"a voice with another's key": {
			[]string{"VOICE_PROVIDER=openai", "OPENAI_API_KEY=open sesame"},
			[]string{`OPENAI_API_KEY: the key is not printable ASCII without spaces`},
		},
		"a voice elsewhere, by a token in the clear": {
			[]string{"VOICE_PROVIDER=grpc", "GRPC_AI_BACKEND_HOST=ai.example.org", "GRPC_AI_BACKEND_TOKEN=open-sesame"},
			[]string{`GRPC_AI_BACKEND_TOKEN: would leave this machine in the clear; set GRPC_AI_BACKEND_TLS=true`},
		},
		"openai without a model": {
			[]string{"AI_PROVIDER=openai"},
			[]string{`AI_MODEL: no model is named`},
		},
		"an address that is none, and no kind of server": {
			[]string{"AI_PROVIDER=openai", "AI_MODEL=m", "OPENAI_BASE_URL=localhost:11434"},
			[]string{`OPENAI_BASE_URL: the base URL is no http or https URL`},
		},
		"a kind of server that is not known": {
			[]string{"AI_PROVIDER=openai", "AI_MODEL=m", "OPENAI_SERVER=watson"},
			[]string{`OPENAI_SERVER: the kind of server is none of openai, compatible, ollama, llamacpp and vllm: "watson"`},
		},
		"gemini without a key": {
			[]string{"AI_PROVIDER=gemini", "AI_MODEL=m"},
			[]string{`GEMINI_API_KEY: the key is empty, or not printable ASCII without spaces`},
		},
		"all that a provider lacks": {
			[]string{"AI_PROVIDER=gemini", "GEMINI_BASE_URL=here"},
			[]string{
				`AI_MODEL: no model is named`,
				`GEMINI_API_KEY: the key is empty, or not printable ASCII without spaces`,
				`GEMINI_BASE_URL: the base URL is no http or https URL`,
			},
		},
		"numbers out of range": {
			[]string{"AI_MAX_TOKENS=-1", "AI_MAX_REPLIES=-1", "AI_TEMPERATURE=2.1", "AI_SERVICE_PORT=65536"},
			[]string{
				`AI_TEMPERATURE: 2.1 is not from 0 to 2`,
				`AI_MAX_TOKENS: -1 is less than nothing; use 0 for the provider's own bound`,
				`AI_MAX_REPLIES: -1 is less than nothing; use 0 for any number`,
				`AI_SERVICE_PORT: 65536 is not a port; use 1 to 65535, or 0 for any that is free`,
			},
		},
		"what is no number, though Go reads it as one": {
			[]string{"AI_TEMPERATURE=NaN"},
			[]string{`AI_TEMPERATURE: NaN is not from 0 to 2`},
		},
		"a word for a number": {
			[]string{"AI_TEMPERATURE=hot"},
			[]string{`AI_TEMPERATURE: "hot" is not a number; write one such as 0.7`},
		},
		"a credential that no header can hold": {
			[]string{"AI_SERVICE_TOKEN=open sesame"},
			[]string{`AI_SERVICE_TOKEN: holds a space, or what is no printable ASCII`},
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
