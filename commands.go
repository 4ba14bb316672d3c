package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"parley/auth"
)

// parley is the whole command line.
func parley() command {
	return command{
		name:  "parley",
		does:  "the backend of an AI chat product",
		about: "Without a command it serves. All settings come from the environment and from\na file .env in the working directory; parley config lists them.",
		setup: func(*flag.FlagSet) action { return serveCommand },
		sub: []command{
			{
				name:  "serve",
				does:  "answer HTTP until SIGTERM or SIGINT",
				about: "A signal asks for an orderly end: running replies go on for DRAIN_TIMEOUT. A\nsecond one ends at once. The settings are listed by parley config.",
				setup: func(*flag.FlagSet) action { return serveCommand },
			},
			migrateCommands(),
			{name: "keys", does: "make and list the keys that sign tokens", sub: []command{
				{
					name:  "new",
					does:  "print a new key set",
					about: "It holds a private key: keep it where only the service can read it.\n\n  (umask 077; parley keys new > keys.json)\n\nThen set JWT_KEYS_FILE=keys.json.",
					setup: func(*flag.FlagSet) action { return newKeys },
				},
				{
					name:  "list",
					does:  "show the keys that are set, without their private parts",
					setup: func(*flag.FlagSet) action { return showKeys },
				},
			}},
			{
				name:  "healthcheck",
				does:  "ask the service on this machine if it is ready, for containers",
				about: "It asks /readyz at HOST and PORT; the exit code is 0 if the answer is 200.",
				setup: func(flags *flag.FlagSet) action {
					live := flags.Bool("live", false, "ask /livez: is the process there at all")
					return func(ctx context.Context, p process) error { return healthcheck(ctx, p, *live) }
				},
			},
			{
				name:  "config",
				does:  "list all settings, and where each comes from; secrets are hidden",
				about: "What is wrong with them is told on stderr, and the exit code is then 1.",
				setup: func(flags *flag.FlagSet) action {
					markdown := flags.Bool("markdown", false, "print names, defaults and meanings as a table for the README")
					return func(_ context.Context, p process) error { return showConfig(p, *markdown) }
				},
			},
			{
				name:  "version",
				does:  "print the version",
				setup: func(*flag.FlagSet) action { return showVersion },
			},
		},
	}
}

func serveCommand(ctx context.Context, p process) error {
	c := configure(p.environ, p.dotenv)
	if err := c.need(); err != nil {
		return err
	}
	return serve(ctx, c.Config, newLogger(p.stderr, &c.Config))
}

func newKeys(_ context.Context, p process) error {
	set, err := auth.GenerateKeySet()
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(p.stdout, "%s\n", strings.TrimSpace(string(set)))
	return err
}

func showKeys(_ context.Context, p process) error {
	c := configure(p.environ, p.dotenv)
	if err := c.need("DATABASE_URL", "JWT_KEYS", "JWT_KEYS_FILE"); err != nil {
		return err
	}
	set := []byte(c.JWTKeys)
	if c.JWTKeys == "" {
		var err error
		set, err = os.ReadFile(c.keysPath())
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s is not there yet; parley serve makes it", c.keysPath())
		}
		if err != nil {
			return err
		}
	}
	keys, err := listKeys(set)
	if err != nil {
		return err
	}
	table := tabwriter.NewWriter(p.stdout, 0, 0, 3, ' ', 0)
	fmt.Fprintln(table, "KID\tALG\tUSE")
	for i, key := range keys {
		use := "verifies"
		if i == 0 {
			use = "signs, verifies"
		}
		fmt.Fprintf(table, "%s\t%s\t%s\n", key.ID, key.Algorithm, use)
	}
	return table.Flush()
}

// healthcheckTimeout is shorter than a container's usual patience.
const healthcheckTimeout = 3 * time.Second

func healthcheck(ctx context.Context, p process, live bool) error {
	c := configure(p.environ, p.dotenv)
	if err := c.need("HOST", "PORT"); err != nil {
		return err
	}
	host := c.Host
	if addr, err := netip.ParseAddr(host); err == nil && addr.IsUnspecified() {
		host = "localhost"
	}
	path := "/readyz"
	if live {
		path = "/livez"
	}
	url := "http://" + net.JoinHostPort(host, strconv.Itoa(c.Port)) + path

	ctx, cancel := context.WithTimeout(ctx, healthcheckTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	// A transport of its own: no proxy stands between a machine and itself.
	res, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		return fmt.Errorf("GET %s: %w", url, err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(io.LimitReader(res.Body, 1024))
		return fmt.Errorf("GET %s: %s %s", url, res.Status, strings.Join(strings.Fields(string(body)), " "))
	}
	return nil
}
