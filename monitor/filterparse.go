package monitor

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxFilterDepth is the limit of parentheses and nots around each other.
const maxFilterDepth = 100

// maxName is the longest name in the server_name extension (RFC 1035 §2.3.4).
const maxName = 255

// ParseFilter parses a filter with the words of pcap-filter(7), as in
//
//	host 192.0.2.1 and port 443
//	net 2001:db8::/32 or name *.example.org
//	(port 443 or port 853) and not name .example.com
//
// "host" has an IP address, "port" a number, and "net" a network in its short form: either end
// has it. "name" has the server name in the ClientHello, in its ASCII form. In it a star
// stands for any characters. A dot at its beginning stands for the name behind it and all
// names below that. Capitals do not matter, and no name matches a connection without one.
//
// "not" (or !) binds closest. As pcap-filter(7) reads "and" (&&) and "or" (||) from left to right
// and others let "and" bind closer, an "and" after an "or" needs parentheses. An empty filter
// selects all.
//
// The error wraps [ErrFilter] and has the position of what cannot be read.
func ParseFilter(text string) (*Filter, error) {
	p := filterParser{text: text}
	p.next()
	f := &Filter{text: text}
	if p.word == "" {
		return f, nil
	}
	root, err := p.expression()
	if err == nil && p.word != "" {
		err = p.unexpected(`"and" or "or"`)
	}
	if err != nil {
		return nil, fmt.Errorf("monitor: %w: %w", ErrFilter, err)
	}
	f.root = root
	return f, nil
}

// filterParser reads a filter word by word.
type filterParser struct {
	text  string
	word  string // empty: the end
	at    int    // where word begins
	end   int    // where word ends
	depth int
}

// next goes to the next word. Parentheses and operators are words of their own.
func (p *filterParser) next() {
	rest := strings.TrimLeft(p.text[p.end:], " \t\r\n")
	p.at = len(p.text) - len(rest)
	n := strings.IndexAny(rest, " \t\r\n()!&|")
	switch {
	case n < 0:
		n = len(rest)
	case n == 0 && (strings.HasPrefix(rest, "&&") || strings.HasPrefix(rest, "||")):
		n = 2
	case n == 0:
		n = 1
	}
	p.word, p.end = rest[:n], p.at+n
}

// fail returns an error at the current word.
func (p *filterParser) fail(format string, args ...any) error {
	position := 1 + utf8.RuneCountInString(p.text[:p.at])
	return fmt.Errorf("character %d: %s", position, fmt.Sprintf(format, args...))
}

// unexpected returns the error that the current word is not what has to come here.
func (p *filterParser) unexpected(want string) error {
	if p.word == "" {
		return p.fail("%s is missing at the end", want)
	}
	return p.fail("%q is not %s", p.word, want)
}

// expression reads terms up to a closing parenthesis, or to the end.
func (p *filterParser) expression() (term, error) {
	var choices anyOf
	var all allOf
	for {
		t, err := p.negation()
		if err != nil {
			return nil, err
		}
		all = append(all, t)
		switch p.word {
		case "and", "&&":
			if len(choices) > 0 {
				return nil, p.fail(`an "and" after an "or" needs parentheses`)
			}
		case "or", "||":
			choices = append(choices, all.simple())
			all = nil
		default:
			if len(choices) == 0 {
				return all.simple(), nil
			}
			return append(choices, all.simple()), nil
		}
		p.next()
	}
}

// simple returns the only term, or all of them.
func (t allOf) simple() term {
	if len(t) == 1 {
		return t[0]
	}
	return t
}

// negation reads a term with the nots before it.
func (p *filterParser) negation() (term, error) {
	if p.depth++; p.depth > maxFilterDepth {
		return nil, p.fail("there are more than %d parentheses and nots around each other", maxFilterDepth)
	}
	defer func() { p.depth-- }()
	switch p.word {
	case "not", "!":
		p.next()
		t, err := p.negation()
		if err != nil {
			return nil, err
		}
		return notTerm{t}, nil
	case "(":
		opened := p.fail("the parenthesis is not closed")
		p.next()
		t, err := p.expression()
		switch {
		case err != nil:
			return nil, err
		case p.word == "":
			return nil, opened
		case p.word != ")":
			return nil, p.unexpected(`"and", "or" or a parenthesis`)
		}
		p.next()
		return t, nil
	}
	return p.primitive()
}

// primitive reads a word and its value.
func (p *filterParser) primitive() (term, error) {
	parse := map[string]func(string) (term, error){
		"host": parseHost, "port": parsePort, "net": parseNet, "name": parseName,
	}[p.word]
	if parse == nil {
		return nil, p.unexpected("host, port, net, name, not or a parenthesis")
	}
	kind := p.word
	p.next()
	if p.word == "" || strings.ContainsAny(p.word, "()!&|") {
		return nil, p.unexpected("the value of " + kind)
	}
	t, err := parse(p.word)
	if err != nil {
		return nil, p.fail("%q: %v", p.word, err)
	}
	p.next()
	return t, nil
}

func parseHost(value string) (term, error) {
	addr, err := netip.ParseAddr(value)
	if err != nil || addr.Zone() != "" {
		return nil, errors.New("not an IP address")
	}
	return hostTerm{addr.As16()}, nil
}

func parsePort(value string) (term, error) {
	n, err := strconv.ParseUint(value, 10, 16)
	if err != nil {
		return nil, errors.New("not a port from 0 to 65535")
	}
	return portTerm(n), nil
}

func parseNet(value string) (term, error) {
	prefix, err := netip.ParsePrefix(value)
	if err != nil {
		return nil, errors.New("not a network such as 192.0.2.0/24")
	}
	if prefix != prefix.Masked() {
		return nil, fmt.Errorf("not a network but an address in %v", prefix.Masked())
	}
	return netTerm{prefix}, nil
}

func parseName(value string) (term, error) {
	if len(value) > maxName {
		return nil, fmt.Errorf("longer than %d characters", maxName)
	}
	for i := range len(value) {
		if value[i] <= ' ' || value[i] > '~' {
			return nil, errors.New("not in the ASCII form of names (xn--…)")
		}
	}
	value = strings.ToLower(value)
	if below, ok := strings.CutPrefix(value, "."); ok {
		return anyOf{nameTerm(below), nameTerm("*" + value)}, nil
	}
	return nameTerm(value), nil
}
