package nettest

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Counters are the counters of a host's protocols, by the names that nstat(8) gives them,
// as TcpRetransSegs, TcpExtPAWSEstab and Ip6InOctets.
type Counters map[string]uint64

// Counters reads the counters of /proc/net/snmp, netstat and snmp6.
func (h *Host) Counters() Counters {
	h.tb.Helper()
	c := make(Counters)
	h.Do(func() error {
		for _, name := range []string{"snmp", "netstat"} {
			text, err := os.ReadFile("/proc/thread-self/net/" + name)
			if err != nil {
				return err
			}
			if err := c.parseTables(string(text)); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		text, err := os.ReadFile("/proc/thread-self/net/snmp6")
		if err != nil {
			return err
		}
		return c.parseList(string(text))
	})
	return c
}

// Since returns the counters that have changed, and by how much.
func (c Counters) Since(before Counters) Counters {
	changed := make(Counters)
	for name, n := range c {
		if n != before[name] {
			changed[name] = n - before[name]
		}
	}
	return changed
}

// parseTables reads pairs of lines: one has the names, and the next the numbers.
func (c Counters) parseTables(text string) error {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	for ; len(lines) >= 2; lines = lines[2:] {
		names, numbers := strings.Fields(lines[0]), strings.Fields(lines[1])
		if len(names) != len(numbers) || len(names) == 0 || names[0] != numbers[0] {
			return fmt.Errorf("unexpected lines:\n%s\n%s", lines[0], lines[1])
		}
		protocol := strings.TrimSuffix(names[0], ":")
		for i := 1; i < len(names); i++ {
			n, err := parseCounter(numbers[i])
			if err != nil {
				return err
			}
			c[protocol+names[i]] = n
		}
	}
	return nil
}

// parseList reads lines of a name and a number.
func (c Counters) parseList(text string) error {
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) != 2 {
			return fmt.Errorf("unexpected line: %s", line)
		}
		n, err := parseCounter(fields[1])
		if err != nil {
			return err
		}
		c[fields[0]] = n
	}
	return nil
}

// parseCounter reads a number, of which few can be negative (TcpMaxConn).
func parseCounter(s string) (uint64, error) {
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		return uint64(n), nil
	}
	return strconv.ParseUint(s, 10, 64)
}
