package quota

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"time"
)

// maxLine is the maximum length of a line of a list file, in bytes.
const maxLine = 4096

// ParseList reads a list file, with one entry on each line:
//
//	# a comment
//	deny  192.0.2.0/24
//	deny  198.51.100.7      ttl=24h end   a reason, for operators
//	allow 2001:db8::/48     the office
//
// Prefixes are written as [ParsePrefix] reads them. ttl, in the format of
// [time.ParseDuration], is how long the entry lasts from now on; "end" sets
// [Entry].End; the rest of the line is its reason. If a line is invalid, ParseList
// returns no entries and a [LineError] about the first such line.
func ParseList(r io.Reader, now time.Time) ([]Entry, error) {
	return parseList(r, now, math.MaxInt)
}

// parseList is ParseList with a maximum number of entries for each list.
func parseList(r io.Reader, now time.Time, most int) ([]Entry, error) {
	var entries []Entry
	var counts [numLists]int
	firstLine := make(map[entryID]int)
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, maxLine), maxLine)
	n := 0
	for lines.Scan() {
		n++
		e, ok, err := parseLine(lines.Text(), now)
		if err == nil && !ok {
			continue
		}
		id := entryID{e.List, e.Prefix}
		switch {
		case err != nil:
		case firstLine[id] > 0:
			err = fmt.Errorf("%w: %v %v is on line %d already", ErrPrefix, e.List, e.Prefix, firstLine[id])
		case counts[e.List] >= most:
			err = fmt.Errorf("%v list: %w: it may have %d entries", e.List, ErrFull, most)
		}
		if err != nil {
			return nil, &LineError{n, err}
		}
		firstLine[id] = n
		counts[e.List]++
		entries = append(entries, e)
	}
	if err := lines.Err(); err != nil {
		if errors.Is(err, bufio.ErrTooLong) {
			err = fmt.Errorf("longer than %d bytes", maxLine)
		}
		return nil, &LineError{n + 1, err}
	}
	return entries, nil
}

// parseLine reads a line. ok is false if it holds no entry.
func parseLine(line string, now time.Time) (e Entry, ok bool, err error) {
	verb, rest := cutField(line)
	if verb == "" || verb[0] == '#' {
		return Entry{}, false, nil
	}
	switch verb {
	case "deny":
		e.List = DenyList
	case "allow":
		e.List = AllowList
	default:
		return Entry{}, false, fmt.Errorf("want \"deny\" or \"allow\", got %q", verb)
	}
	text, rest := cutField(rest)
	if e.Prefix, err = ParsePrefix(text); err != nil {
		return Entry{}, false, err
	}
	for {
		option, after := cutField(rest)
		ttl, isTTL := strings.CutPrefix(option, "ttl=")
		switch {
		case isTTL && e.Expires.IsZero():
			d, err := time.ParseDuration(ttl)
			if err != nil || d <= 0 {
				return Entry{}, false, fmt.Errorf("ttl %q is not a duration above 0, such as 24h", ttl)
			}
			e.Expires = now.Add(d)
		case option == "end" && e.List == DenyList && !e.End:
			e.End = true
		default:
			e.Reason = strings.TrimSpace(rest)
			return e, true, nil
		}
		rest = after
	}
}

// cutField cuts the first word off a line.
func cutField(s string) (field, rest string) {
	s = strings.TrimLeft(s, " \t\r")
	if i := strings.IndexAny(s, " \t\r"); i >= 0 {
		return s[:i], s[i:]
	}
	return s, ""
}

// LoadFile reads a file in the format of [ParseList]. Its entries replace those that
// were loaded from a file of the same name before. Entries that were added at run time
// stay, and win over entries of the file with the same prefix. If there is an error,
// nothing changes. An error wraps a [LineError], [ErrFull], or the error of reading the
// file.
func (c *Controller) LoadFile(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return fmt.Errorf("load list: %w", err)
	}
	defer f.Close()
	entries, err := parseList(f, c.conf.Now(), c.conf.MaxEntries)
	if err != nil {
		return fmt.Errorf("load list %s: %w", name, err)
	}
	for i := range entries {
		entries[i].File = name
	}
	added, gone, err := c.lists.replaceFile(name, entries)
	if err != nil {
		return fmt.Errorf("load list %s: %w", name, err)
	}
	for _, e := range append(gone, added...) {
		c.enforcement.updateEntry(e.List, e.Prefix)
	}
	ended := c.endDenied(added)
	c.log.Info("list loaded", "file", name, "entries", len(entries), "gone", len(gone), "ended", ended)
	return nil
}
