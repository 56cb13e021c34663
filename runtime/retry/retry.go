// Package retry configures how a registration is repaired that was lost in etcd.
package retry

import (
	"fmt"
	"time"
)

// Defaults of NewRetryConfig. They are those that the documentation of registry-etcd gives.
const (
	DefaultMaxAttemptTimes uint = 5
	DefaultObserveDelay         = 30 * time.Second
	DefaultRetryDelay           = 10 * time.Second
)

// Config says how often a registration is checked, and how a lost one is repaired. It is read when a Conn is made. Several Conns may share
// it; do not change it afterwards. Begin with NewRetryConfig: the zero value is an error of etcd.Connect.
type Config struct {
	// MaxAttemptTimes limits the attempts of one repair. When a repair has used them all, this is reported, and the next repair
	// begins after ObserveDelay: a registration is never given up while its server runs. 0 means no limit.
	MaxAttemptTimes uint
	// ObserveDelay is the time between two checks of a registration that is not lost. It must be positive.
	ObserveDelay time.Duration
	// RetryDelay is the time between two attempts of a repair, changed at random by up to 25 %. The first attempt is made at once. It
	// must be positive.
	RetryDelay time.Duration
}

// Option changes one field of a Config.
type Option func(*Config)

// NewRetryConfig returns the defaults (5 attempts, observed every 30 s, retried every 10 s) changed by opts.
func NewRetryConfig(opts ...Option) *Config {
	c := &Config{
		MaxAttemptTimes: DefaultMaxAttemptTimes,
		ObserveDelay:    DefaultObserveDelay,
		RetryDelay:      DefaultRetryDelay,
	}
	for _, opt := range opts {
		opt(c)
	}
	return c
}

// WithMaxAttemptTimes sets Config.MaxAttemptTimes; 0 means no bound.
func WithMaxAttemptTimes(n uint) Option { return func(c *Config) { c.MaxAttemptTimes = n } }

// WithObserveDelay sets Config.ObserveDelay.
func WithObserveDelay(d time.Duration) Option { return func(c *Config) { c.ObserveDelay = d } }

// WithRetryDelay sets Config.RetryDelay.
func WithRetryDelay(d time.Duration) Option { return func(c *Config) { c.RetryDelay = d } }

// Validate returns an error that names the field when a delay is not positive.
func (c *Config) Validate() error {
	if c.ObserveDelay <= 0 {
		return fmt.Errorf("retry: ObserveDelay is %v; it must be positive (default %v)", c.ObserveDelay, DefaultObserveDelay)
	}
	if c.RetryDelay <= 0 {
		return fmt.Errorf("retry: RetryDelay is %v; it must be positive (default %v)", c.RetryDelay, DefaultRetryDelay)
	}
	return nil
}
