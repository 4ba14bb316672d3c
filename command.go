package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// An action is what a command does once its flags are read.
type action func(ctx context.Context, p process) error

// A command is a word of the command line: it does something, or leads to
// further words, or both.
type command struct {
	name  string
	does  string // one line, for the list of commands
	about string // what else its help says
	sub   []command

	// setup declares the flags and returns what to do with them. Nil: the
	// command needs a further word.
	setup func(*flag.FlagSet) action
	// operand is what stands behind the flags, such as FILE; setup finds it in
	// the flag set, once that is parsed. Empty: nothing does.
	operand string
}

// usageError is a command line that makes no sense. It begins with the words
// that did.
type usageError string

func (e usageError) Error() string { return string(e) }

// dispatch runs the command, whose words so far are path, with the arguments
// that follow them.
func (c command) dispatch(ctx context.Context, p process, path string, args []string) error {
	flags := flag.NewFlagSet(path, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	var act action
	if c.setup != nil {
		act = c.setup(flags)
	}
	err := flags.Parse(args)
	switch word := flags.Arg(0); {
	case errors.Is(err, flag.ErrHelp), word == "help" && c.sub != nil:
		return c.help(p.stdout, path, flags)
	case err != nil:
		return usageError(fmt.Sprintf("%s: %v; see %s --help", path, err, path))
	case word != "" && c.sub != nil:
		return c.lead(ctx, p, path, flags.Args())
	case act == nil:
		return usageError(fmt.Sprintf("%s: a further word is needed; see %s --help", path, path))
	}
	if err := c.checkOperand(path, flags.Args()); err != nil {
		return err
	}
	return act(ctx, p)
}

// lead runs the command that the first of words names.
func (c command) lead(ctx context.Context, p process, path string, words []string) error {
	for _, sub := range c.sub {
		if sub.name == words[0] {
			return sub.dispatch(ctx, p, path+" "+sub.name, words[1:])
		}
	}
	return usageError(fmt.Sprintf("%s: there is no command %q; see %s --help", path, words[0], path))
}

// checkOperand refuses what stands behind the flags where it is more or less
// than the operand.
func (c command) checkOperand(path string, words []string) error {
	switch {
	case c.operand != "" && len(words) == 0:
		return usageError(fmt.Sprintf("%s: %s is missing; see %s --help", path, c.operand, path))
	case c.operand == "" && len(words) > 0, len(words) > 1:
		return usageError(fmt.Sprintf("%s: takes no %q; see %s --help", path, words[len(words)-1], path))
	}
	return nil
}

// help tells what the command does and how to call it.
func (c command) help(w io.Writer, path string, flags *flag.FlagSet) error {
	var text strings.Builder
	fmt.Fprintf(&text, "%s: %s.\n", strings.TrimSpace(path+" "+c.operand), c.does)
	if c.about != "" {
		fmt.Fprintf(&text, "\n%s\n", c.about)
	}
	if c.sub != nil {
		text.WriteString("\nCommands (each with --help):\n\n")
		table := tabwriter.NewWriter(&text, 0, 0, 3, ' ', 0)
		for _, sub := range c.sub {
			fmt.Fprintf(table, "  %s %s\t%s\n", path, sub.name, sub.does)
		}
		table.Flush()
	}
	var all strings.Builder
	flags.SetOutput(&all)
	flags.PrintDefaults()
	if all.Len() > 0 {
		fmt.Fprintf(&text, "\nFlags:\n\n%s", all.String())
	}
	_, err := io.WriteString(w, text.String())
	return err
}
