package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"os"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"time"

	"github.com/caarlos0/env/v10"
	"github.com/joho/godotenv"

	"parley/aigrpc"
	"parley/auth"
	"parley/handlers"
)

// Config is every setting of the program. The tags are what the help, the
// README's table and `parley config` are made from: env the name, envDefault
// the default, production the default under ENV=production where that is
// another one, desc the meaning, absent what holds where the setting is empty,
// and secret what must not be shown: all of it, or the passwords in a URL.
type Config struct {
	Host      string `env:"HOST" envDefault:"127.0.0.1" desc:"address to listen on; containers set 0.0.0.0"`
	Port      int    `env:"PORT" envDefault:"8080" desc:"port to listen on; 0 lets the system choose"`
	TLSCert   string `env:"TLS_CERT" desc:"file with the certificate chain (PEM) of the service; without one it speaks in the clear, for a proxy in front of it"`
	TLSKey    string `env:"TLS_KEY" desc:"file with its key (PEM); both files may change while it runs"`
	PublicURL string `env:"PUBLIC_URL" absent:"http://HOST:PORT" desc:"where clients reach the service; production asks for it, with https"`
	Console   bool   `env:"CONSOLE" envDefault:"true" desc:"browsers get the console at /; false is for a service that only has its API"`
	Env       string `env:"ENV" envDefault:"development" desc:"development or production; production refuses what is unsafe"`

	DatabaseURL       string `env:"DATABASE_URL" envDefault:"sqlite://parley.db" secret:"url" desc:"sqlite://file or postgres://user:password@host/name"`
	DatabaseListenURL string `env:"DATABASE_LISTEN_URL" absent:"DATABASE_URL" secret:"url" desc:"postgres:// URL of a direct connection for notifications, where DATABASE_URL goes through a pooler"`
	DatabaseMaxConns  int    `env:"DATABASE_MAX_CONNS" envDefault:"10" desc:"most connections that one process opens to PostgreSQL"`
	MigrateOnStart    bool   `env:"MIGRATE_ON_START" envDefault:"true" desc:"bring the database up to date at start; else by parley migrate up"`

	JWTKeysFile     string        `env:"JWT_KEYS_FILE" absent:"made beside an SQLite file" desc:"file with the JWK set that signs tokens (parley keys new); the first key signs, all verify"`
	JWTKeys         string        `env:"JWT_KEYS" secret:"all" desc:"the JWK set itself, instead of a file"`
	AccessTokenTTL  time.Duration `env:"ACCESS_TOKEN_TTL" envDefault:"15m" desc:"how long an access token is valid"`
	RefreshIdleTTL  time.Duration `env:"REFRESH_IDLE_TTL" envDefault:"720h" desc:"how long a device stays signed in without being used"`
	RefreshMaxTTL   time.Duration `env:"REFRESH_MAX_TTL" envDefault:"2160h" desc:"how long a device stays signed in at the most"`
	PasswordMemory  uint32        `env:"PASSWORD_MEMORY_KIB" envDefault:"19456" desc:"argon2id: memory for one password, in KiB"`
	PasswordTime    uint32        `env:"PASSWORD_TIME" envDefault:"2" desc:"argon2id: passes over the memory"`
	PasswordThreads uint8         `env:"PASSWORD_THREADS" envDefault:"1" desc:"argon2id: lanes"`
	PasswordWorkers int           `env:"PASSWORD_WORKERS" envDefault:"0" desc:"passwords hashed at once; 0 goes by the processors"`

	MaxConnections int            `env:"MAX_CONNECTIONS" envDefault:"10000" desc:"most connections at a time, streams among them; idle ones make room, and what is above gets 503; 0 is any number"`
	CORSOrigins    []string       `env:"CORS_ORIGINS" desc:"comma-separated origins whose pages may call the API; empty is none"`
	TrustedProxies []netip.Prefix `env:"TRUSTED_PROXIES" desc:"comma-separated networks whose forwarding headers tell the client's address"`

	LimitLoginAccount        auth.Limit `env:"LIMIT_LOGIN_ACCOUNT" envDefault:"100/1h" desc:"wrong passwords for one account from anywhere; devices that it was used on are still let in"`
	LimitLoginAccountNetwork auth.Limit `env:"LIMIT_LOGIN_ACCOUNT_NETWORK" envDefault:"10/15m" desc:"wrong passwords for one account from one network: an IPv4 address, or an IPv6 /64"`
	LimitLoginNetwork        auth.Limit `env:"LIMIT_LOGIN_NETWORK" envDefault:"300/15m" desc:"wrong passwords from one network"`
	LimitSignups             auth.Limit `env:"LIMIT_SIGNUPS" envDefault:"off" production:"100/1h" desc:"new accounts from one network"`
	LimitResetMails          auth.Limit `env:"LIMIT_RESET_MAILS" envDefault:"3/1h" desc:"mails that reset a password, to one address"`
	LimitResetRequests       auth.Limit `env:"LIMIT_RESET_REQUESTS" envDefault:"30/1h" desc:"requests for such mails from one network"`
	LimitMessages            auth.Limit `env:"LIMIT_MESSAGES" envDefault:"off" production:"60/1m" desc:"messages of one user"`
	DailyTokenLimit          int64      `env:"DAILY_TOKEN_LIMIT" envDefault:"0" desc:"tokens of one user in a day (UTC), of what goes to the model and of what it says; until it has ended an answer is taken to be AI_MAX_TOKENS long, or 1024 where that is 0, and one that is longer may go past the limit; 0 is any number"`
	LimitStreams             int64      `env:"LIMIT_STREAMS" envDefault:"0" production:"200" desc:"open streams of one user, over all replicas; 0 is any number"`

	SMTPURL       string `env:"SMTP_URL" secret:"url" absent:"mail is written to the log" desc:"mail server: smtp://user:password@host:587, or smtps://user:password@host:465; production asks for it"`
	MailFrom      string `env:"MAIL_FROM" desc:"address that mail comes from, with SMTP_URL"`
	AdminEmail    string `env:"ADMIN_EMAIL" desc:"address of the administrator that is made at start if there is none"`
	AdminPassword string `env:"ADMIN_PASSWORD" secret:"all" desc:"its password"`

	AuditKeep time.Duration `env:"AUDIT_KEEP" envDefault:"8760h" desc:"how long audit entries are kept"`

	AIProvider          string        `env:"AI_PROVIDER" envDefault:"demo" desc:"who writes the replies: demo (a small companion that needs no model), openai (any server that speaks as OpenAI does), gemini, or grpc (a service of its own)"`
	AIModel             string        `env:"AI_MODEL" absent:"the backend's choice" desc:"name of the model; openai and gemini ask for one"`
	AIAnyModel          bool          `env:"AI_ANY_MODEL" envDefault:"false" desc:"parley ai: a caller may name another model than AI_MODEL"`
	AISystemPrompt      string        `env:"AI_SYSTEM_PROMPT" absent:"a kind companion" desc:"what openai and gemini are told to be; a blank is nothing"`
	AITemperature       *float64      `env:"AI_TEMPERATURE" absent:"the model's own" desc:"how free openai and gemini are in their choice of words, 0 to 2"`
	AIMaxTokens         int32         `env:"AI_MAX_TOKENS" envDefault:"0" desc:"most tokens of an answer by openai and gemini; 0 is the model's own bound"`
	AITitles            bool          `env:"AI_TITLES" envDefault:"false" desc:"ask the model for the titles of chats too (the demo is none); else they are the user's first words"`
	AIMaxReplies        int           `env:"AI_MAX_REPLIES" envDefault:"0" desc:"replies that run at once in one process; a few wait for a place, others get 503; 0 is any number"`
	AIContextBytes      int64         `env:"AI_CONTEXT_BYTES" envDefault:"0" desc:"how much history goes along, in bytes; 0 is all"`
	AIContextMessages   int64         `env:"AI_CONTEXT_MESSAGES" envDefault:"0" desc:"how much history goes along, in messages; 0 is all"`
	AIFirstChunkTimeout time.Duration `env:"AI_FIRST_CHUNK_TIMEOUT" envDefault:"30s" desc:"how long the AI backend may take to begin"`
	AIChunkTimeout      time.Duration `env:"AI_CHUNK_TIMEOUT" envDefault:"30s" desc:"how long the AI backend may pause in a reply"`
	BackendHost         string        `env:"GRPC_AI_BACKEND_HOST" envDefault:"localhost" desc:"host of the AI service, with AI_PROVIDER=grpc"`
	BackendPort         int           `env:"GRPC_AI_BACKEND_PORT" envDefault:"50051" desc:"port of the AI service"`
	BackendTLS          bool          `env:"GRPC_AI_BACKEND_TLS" envDefault:"false" desc:"speak TLS with the AI service"`
	BackendCA           string        `env:"GRPC_AI_BACKEND_CA" absent:"the system's" desc:"file with the certificates (PEM) that vouch for the AI service"`
	BackendToken        string        `env:"GRPC_AI_BACKEND_TOKEN" secret:"all" desc:"bearer credential for the AI service"`
	DemoTokenDelay      time.Duration `env:"DEMO_TOKEN_DELAY" envDefault:"30ms" desc:"the pace of the demo provider"`
	OpenAIBaseURL       string        `env:"OPENAI_BASE_URL" absent:"https://api.openai.com/v1" secret:"url" desc:"where /chat/completions stands, such as http://localhost:11434/v1"`
	OpenAIKey           string        `env:"OPENAI_API_KEY" secret:"all" desc:"key of that server, where it asks for one"`
	OpenAIServer        string        `env:"OPENAI_SERVER" absent:"openai at its own address, else compatible" desc:"what kind of server it is: openai, compatible, ollama, llamacpp or vllm; the last three go on from a given text"`
	GeminiKey           string        `env:"GEMINI_API_KEY" secret:"all" desc:"key of the Gemini API"`
	GeminiBaseURL       string        `env:"GEMINI_BASE_URL" absent:"Google's" secret:"url" desc:"where the Gemini API stands"`
	AIServicePort       int           `env:"AI_SERVICE_PORT" envDefault:"50051" desc:"port that parley ai listens on; 0 lets the system choose"`
	AIServiceToken      string        `env:"AI_SERVICE_TOKEN" secret:"all" desc:"bearer credential that parley ai asks for"`
	AIServiceTLSCert    string        `env:"AI_SERVICE_TLS_CERT" desc:"file with the certificate chain (PEM) of parley ai; without one it speaks in the clear"`
	AIServiceTLSKey     string        `env:"AI_SERVICE_TLS_KEY" desc:"file with its key (PEM)"`

	VoiceProvider         string        `env:"VOICE_PROVIDER" absent:"as AI_PROVIDER where it has a voice, else none" desc:"who hears and speaks: openai (any server with /audio/transcriptions and /audio/speech), local (ffmpeg, pocketsphinx and flite on this machine; English), grpc (the AI service), or none"`
	VoiceName             string        `env:"VOICE_NAME" absent:"alloy with openai, slt with local" desc:"voice that speaks where a request names none"`
	VoiceGrammar          string        `env:"VOICE_GRAMMAR" absent:"all of English" desc:"file with a JSGF grammar: local understands nothing but what it allows, and that far better"`
	VoiceLocalCalls       int           `env:"VOICE_LOCAL_CALLS" envDefault:"0" desc:"recordings that local hears at once, and texts that it speaks; 0 goes by the processors"`
	VoiceFirstTimeout     time.Duration `env:"VOICE_FIRST_CHUNK_TIMEOUT" envDefault:"60s" desc:"how long a transcript may take to begin when the recording is whole, and speech"`
	VoiceChunkTimeout     time.Duration `env:"VOICE_CHUNK_TIMEOUT" envDefault:"30s" desc:"how long either may pause"`
	OpenAITranscribeModel string        `env:"OPENAI_TRANSCRIBE_MODEL" envDefault:"whisper-1" desc:"model that hears, with VOICE_PROVIDER=openai"`
	OpenAISpeechModel     string        `env:"OPENAI_SPEECH_MODEL" envDefault:"gpt-4o-mini-tts" desc:"model that speaks, with VOICE_PROVIDER=openai"`

	MetricsAddr     string  `env:"METRICS_ADDR" absent:"/metrics on HOST:PORT, for callers on this machine" desc:"host:port where Prometheus finds /metrics, apart from all else; whoever reaches it may read it"`
	OTLPEndpoint    string  `env:"OTEL_EXPORTER_OTLP_ENDPOINT" absent:"nothing is traced" secret:"url" desc:"base URL of a collector that takes traces over HTTP (OTLP, protobuf), such as http://localhost:4318"`
	OTLPHeaders     string  `env:"OTEL_EXPORTER_OTLP_HEADERS" secret:"all" desc:"name=value, with commas between, that go to the collector with each request"`
	OTelService     string  `env:"OTEL_SERVICE_NAME" envDefault:"parley" desc:"what the traces are of"`
	OTelSampler     string  `env:"OTEL_TRACES_SAMPLER" envDefault:"parentbased_always_on" desc:"which requests are traced, by the names that OpenTelemetry has for that"`
	OTelSamplerRate float64 `env:"OTEL_TRACES_SAMPLER_ARG" envDefault:"1" desc:"which part of them, 0 to 1, with parentbased_traceidratio or traceidratio"`

	DrainTimeout time.Duration `env:"DRAIN_TIMEOUT" envDefault:"20s" desc:"how long an ending process goes on with its replies; less than the platform's grace"`
	LogLevel     slog.Level    `env:"LOG_LEVEL" envDefault:"info" desc:"debug, info, warn or error"`
	LogFormat    string        `env:"LOG_FORMAT" absent:"text on a terminal, else json" desc:"json or text"`
}

// Addr is the address to listen on, host:port.
func (c *Config) Addr() string { return net.JoinHostPort(c.Host, strconv.Itoa(c.Port)) }

// openURL is the database's URL as package models takes it, with the limit of
// connections in it.
func (c *Config) openURL() string {
	u, err := url.Parse(c.DatabaseURL)
	if _, sqlite := c.sqlitePath(); sqlite || err != nil {
		return c.DatabaseURL
	}
	query := u.Query()
	if !query.Has("pool_max_conns") {
		query.Set("pool_max_conns", strconv.Itoa(c.DatabaseMaxConns))
		u.RawQuery = query.Encode()
	}
	return u.String()
}

// argon2 is what one password costs.
func (c *Config) argon2() auth.Argon2Params {
	return auth.Argon2Params{MemoryKiB: c.PasswordMemory, Time: c.PasswordTime, Threads: c.PasswordThreads}
}

// passwordWorkers is how many passwords are hashed at once: by itself half of
// the processors, so that logins leave the other half to the replies.
func (c *Config) passwordWorkers() int {
	return cmp.Or(c.PasswordWorkers, max(1, runtime.GOMAXPROCS(0)/2))
}

// limits are how often clients may do what costs or harms others.
func (c *Config) limits() handlers.Limits {
	return handlers.Limits{
		LoginAccount:        c.LimitLoginAccount,
		LoginAccountNetwork: c.LimitLoginAccountNetwork,
		LoginNetwork:        c.LimitLoginNetwork,
		Signups:             c.LimitSignups,
		ResetMails:          c.LimitResetMails,
		ResetRequests:       c.LimitResetRequests,
		Messages:            c.LimitMessages,
		DailyTokens:         c.DailyTokenLimit,
	}
}

// reserveTokens is how long an answer is taken to be until it has ended, where
// there is a daily limit.
func (c *Config) reserveTokens() int64 { return cmp.Or(int64(max(0, c.AIMaxTokens)), 1024) }

// backend is how the AI backend is reached, where it is a service of its own,
// and how long it may take.
func (c *Config) backend() aigrpc.Config {
	return aigrpc.Config{
		Target:    net.JoinHostPort(c.BackendHost, strconv.Itoa(c.BackendPort)),
		TLS:       c.BackendTLS,
		CAFile:    c.BackendCA,
		Token:     c.BackendToken,
		Deadlines: aigrpc.Deadlines{FirstChunk: c.AIFirstChunkTimeout, Chunk: c.AIChunkTimeout},
	}
}

// Production reports whether the settings are those of a service that
// strangers use.
func (c *Config) Production() bool { return c.Env == "production" }

// A setting is one field of Config, as its tags describe it.
type setting struct {
	name, field, fallback, production, absent, desc, secret string
}

// settings lists the fields of Config in their order.
func settings() []setting {
	var all []setting
	for f := range reflect.TypeFor[Config]().Fields() {
		all = append(all, setting{
			name:       f.Tag.Get("env"),
			field:      f.Name,
			fallback:   f.Tag.Get("envDefault"),
			production: f.Tag.Get("production"),
			absent:     f.Tag.Get("absent"),
			desc:       f.Tag.Get("desc"),
			secret:     f.Tag.Get("secret"),
		})
	}
	return all
}

// A configuration is a Config with what was given, by whom, and what is wrong
// with it.
type configuration struct {
	Config

	environ, dotenv map[string]string
	dotenvErr       error
	faults          map[string]string // what is wrong, by setting; never a secret's value
}

// environment is what the process was started with: the only place where the
// program asks for it.
func environment() []string { return os.Environ() }

// configure reads the settings: environ first, whose entries are NAME=value,
// then the file dotenv if there is one, then the defaults. A variable that
// environ holds empty counts as empty whatever the file says. It always
// returns a configuration; need tells whether it can be used.
func configure(environ []string, dotenv string) *configuration {
	c := &configuration{environ: env.ToMap(environ), faults: make(map[string]string)}
	c.dotenv, c.dotenvErr = readDotenv(dotenv)

	given := make(map[string]string)
	maps.Copy(given, c.dotenv)
	maps.Copy(given, c.environ)
	c.Env = given["ENV"] // which decides on defaults
	for _, s := range settings() {
		if given[s.name] == "" && s.production != "" {
			given[s.name] = c.fallback(s)
		}
	}
	err := env.ParseWithOptions(&c.Config, env.Options{
		Environment: given,
		FuncMap: map[reflect.Type]env.ParserFunc{
			reflect.TypeFor[[]string]():       func(s string) (any, error) { return parseList(s, parseOrigin) },
			reflect.TypeFor[[]netip.Prefix](): func(s string) (any, error) { return parseList(s, parseNetwork) },
			reflect.TypeFor[auth.Limit]():     func(s string) (any, error) { return auth.ParseLimit(s) },
		},
	})
	c.noteParseErrors(err)
	c.check()
	if c.PublicURL == "" {
		c.PublicURL = c.scheme() + "://" + c.Addr()
	}
	return c
}

// readDotenv reads the file at path, which need not exist. The parser's own
// words quote the file, secrets included, so they are not passed on.
func readDotenv(path string) (map[string]string, error) {
	text, err := os.ReadFile(path)
	if path == "" || errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	given, err := godotenv.Parse(bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("%s: is not a file of settings; write one NAME=value a line, "+
			"and put a value with spaces, #, $ or quotes into single quotes", path)
	}
	return given, nil
}

// noteParseErrors turns the parser's errors, which name fields, into faults,
// which name settings.
func (c *configuration) noteParseErrors(err error) {
	var all env.AggregateError
	if !errors.As(err, &all) {
		return
	}
	for _, err := range all.Errors {
		var parse env.ParseError
		if !errors.As(err, &parse) {
			panic(err) // a field of Config that the parser does not know
		}
		for _, s := range settings() {
			if s.field == parse.Name {
				c.fault(s.name, "%s", s.refuse(parse, c.value(s)))
			}
		}
	}
}

// refuse says in words why value is no value for s.
func (s setting) refuse(err env.ParseError, value string) string {
	switch err.Type {
	case reflect.TypeFor[bool]():
		return fmt.Sprintf("%q is neither true nor false", value)
	case reflect.TypeFor[*float64](), reflect.TypeFor[float64]():
		return fmt.Sprintf("%q is not a number; write one such as 0.7", value)
	case reflect.TypeFor[time.Duration]():
		return fmt.Sprintf("%q is not a duration; write one such as %s", value, s.fallback)
	case reflect.TypeFor[slog.Level]():
		return fmt.Sprintf("%q is not a level; use debug, info, warn or error", value)
	case reflect.TypeFor[[]string](), reflect.TypeFor[[]netip.Prefix](), reflect.TypeFor[auth.Limit]():
		return err.Err.Error()
	}
	return fmt.Sprintf("%q is not a whole number in range; write one such as %s", value, s.fallback)
}

// fault notes that a setting is bad. The first word on a setting stands: what
// follows from it is not worth a line.
func (c *configuration) fault(name, format string, args ...any) {
	if _, known := c.faults[name]; !known {
		c.faults[name] = fmt.Sprintf(format, args...)
	}
}

// fallback is the default of a setting.
func (c *configuration) fallback(s setting) string {
	if c.Production() {
		return cmp.Or(s.production, s.fallback)
	}
	return s.fallback
}

// value is what a setting was given, or its default.
func (c *configuration) value(s setting) string {
	given, ok := c.environ[s.name]
	if !ok {
		given = c.dotenv[s.name]
	}
	return cmp.Or(given, c.fallback(s))
}

// from says where a setting's value comes from.
func (c *configuration) from(s setting) string {
	switch given, ok := c.environ[s.name]; {
	case given != "":
		return "environment"
	case !ok && c.dotenv[s.name] != "":
		return ".env"
	}
	return "default"
}

// need returns an error with one line for each of the named settings that is
// bad, or for each of all settings where none is named. Where the .env file
// cannot be read, that is the only line: the rest would be guesses.
func (c *configuration) need(names ...string) error {
	if c.dotenvErr != nil {
		return c.dotenvErr
	}
	var lines []error
	for _, s := range settings() {
		text, bad := c.faults[s.name]
		if bad && (len(names) == 0 || slices.Contains(names, s.name)) {
			lines = append(lines, fmt.Errorf("%s: %s", s.name, text))
		}
	}
	return errors.Join(lines...)
}
