// Package program is the frame of the example programs: -h and -version, exit codes, errors of
// one line on standard error, and a clean end at SIGINT and SIGTERM.
package program

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"
	"unicode"
)

// The exit codes of a program.
const (
	done    = 0 // it has done its work, or a server was told to end
	failed  = 1 // the error is on standard error
	misused = 2 // so is what is wrong with the command line
)

// Program is a program.
type Program struct {
	Name string
	Does string // what it does, as a sentence without subject and period
	Uses []Use  // ways to use it, at least two
}

// Use is a way to use a program.
type Use struct {
	Args string // the command line, without the name of the program
	Does string // what it does then
}

// Main reads the command line with the flags of package flag, calls run with what follows
// the flags, and ends the process. run should end when ctx is done, at SIGINT or SIGTERM; it
// returns nil then if the program was meant to run until it is told to end. A second signal
// ends the process at once.
func (p *Program) Main(run func(ctx context.Context, args []string) error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	log.SetFlags(0) // quic-go writes warnings
	log.SetPrefix(p.Name + ": ")
	os.Exit(p.main(ctx, flag.CommandLine, os.Args[1:], os.Stdout, os.Stderr, run))
}

func (p *Program) main(ctx context.Context, flags *flag.FlagSet, args []string, stdout, stderr io.Writer, run func(context.Context, []string) error) int {
	version := flags.Bool("version", false, "print the version, and exit")
	flags.Init(p.Name, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.Usage = func() {}
	err := flags.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		p.help(stdout, flags)
		return done
	case err != nil:
		err = Usagef("%v", err)
	case *version:
		info, _ := debug.ReadBuildInfo()
		fmt.Fprintln(stdout, versionLine(p.Name, info))
		return done
	default:
		err = run(ctx, flags.Args())
	}
	return p.report(ctx, stderr, err)
}

// help prints what the program does, ways to use it, and its flags.
func (p *Program) help(w io.Writer, flags *flag.FlagSet) {
	fmt.Fprintf(w, "%s %s.\n\nusage:\n", p.Name, p.Does)
	for _, use := range p.Uses {
		fmt.Fprintf(w, "  %s %s\n    \t%s\n", p.Name, use.Args, use.Does)
	}
	fmt.Fprintln(w, "\nflags:")
	flags.SetOutput(w)
	flags.PrintDefaults()
	fmt.Fprintln(w, "\nexit codes: 0 done, 1 failed, 2 wrong command line")
}

// report prints an error on one line, and returns the exit code.
func (p *Program) report(ctx context.Context, w io.Writer, err error) int {
	var misuse *usageError
	switch {
	case err == nil:
		return done
	case errors.As(err, &misuse):
		fmt.Fprintf(w, "%s: %s (%s -h shows how to use it)\n", p.Name, line(err), p.Name)
		return misused
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		fmt.Fprintf(w, "%s: interrupted\n", p.Name)
	default:
		fmt.Fprintf(w, "%s: %s\n", p.Name, line(err))
	}
	return failed
}

// packages are those of the library whose errors begin with their name.
var packages = []string{"p2p: ", "relay: ", "quota: ", "sni: ", "monitor: ", "xdp: "}

// line returns the text of an error on one line, without the name of a package. A part may
// come from a stranger, so what a terminal might obey is replaced.
func line(err error) string {
	text := strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", "; ")
	for _, name := range packages {
		if rest, ok := strings.CutPrefix(text, name); ok {
			text = rest
			break
		}
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, text)
}

// usageError is an error in a command line.
type usageError struct{ error }

func (e *usageError) Unwrap() error { return e.error }

// Usagef returns an error in the command line, with which a program exits with misused. The
// arguments are those of [fmt.Errorf].
func Usagef(format string, args ...any) error {
	return &usageError{fmt.Errorf(format, args...)}
}

// Args returns an error if there are more arguments than max.
func Args(args []string, max int) error {
	if len(args) > max {
		return Usagef("unexpected argument %q", args[max])
	}
	return nil
}
