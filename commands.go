package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"
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
			aiCommand(),
			migrateCommands(),
			adminCommands(),
			importCommand(),
			keysCommands(),
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
			hashCommand(),
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
	return serve(ctx, p, c.Config)
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
	url := c.scheme() + "://" + net.JoinHostPort(host, strconv.Itoa(c.Port)) + path

	ctx, cancel := context.WithTimeout(ctx, healthcheckTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	// A transport of its own: no proxy stands between a machine and itself.
	res, err := (&http.Transport{DisableKeepAlives: true, TLSClientConfig: loopbackTLS}).RoundTrip(req)
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
