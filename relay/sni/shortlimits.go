package sni

import "time"

// shortLimits are the age, and the bytes of both directions together, up to which a connection
// is short. The zero value says that none is.
type shortLimits struct {
	age   time.Duration
	bytes uint64
}

// shortLimitsOf returns the limits of a configuration. In a loop there are no other time limits.
func shortLimitsOf(conf *Config) shortLimits {
	return shortLimits{age: min(time.Second, conf.HelloTimeout, conf.DialTimeout), bytes: 64 << 10}
}
