package nettest

import (
	"errors"
	"fmt"
	"slices"
)

// Program is the [TB] of a program that is no test, usually as an embedded field. Its zero value is ready
// for use. Only one goroutine may use it at a time.
type Program struct{ cleanups []func() }

var _ TB = (*Program)(nil)

// failure is what Fatal, Fatalf and Skip panic with.
type failure struct{ error }

// End calls the functions of Cleanup, the last one first. It recovers from what Fatal, Fatalf and Skip have
// stopped, and stores their error in err. A program defers it before it makes a host:
//
//	defer p.End(&err)
func (p *Program) End(err *error) {
	switch why := recover().(type) {
	case nil:
	case failure:
		*err = why.error
	default:
		panic(why)
	}
	for _, f := range slices.Backward(p.cleanups) {
		f()
	}
	p.cleanups = nil
}

// Helper does nothing.
func (p *Program) Helper() {}

// Cleanup has End call f.
func (p *Program) Cleanup(f func()) { p.cleanups = append(p.cleanups, f) }

// Fatal ends the function that has deferred End.
func (p *Program) Fatal(args ...any) { panic(failure{errors.New(fmt.Sprint(args...))}) }

// Fatalf ends the function that has deferred End.
func (p *Program) Fatalf(format string, args ...any) { panic(failure{fmt.Errorf(format, args...)}) }

// Skip ends the function that has deferred End, as Fatal does.
func (p *Program) Skip(args ...any) { p.Fatal(args...) }
