package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// A tally counts what the clients meet.
type tally struct {
	mu      sync.Mutex
	calls   int
	failed  []error
	ticks   int
	servers map[string]*span
}

// A span is one server of Hello as its clients see it.
type span struct {
	calls, reported int
	first, last     time.Time
}

func newTally() *tally { return &tally{servers: make(map[string]*span)} }

// answer counts a call that server answered, or that failed.
func (t *tally) answer(server string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.calls++
	if err != nil {
		t.failed = append(t.failed, err)
		return
	}
	s := t.servers[server]
	if s == nil {
		s = &span{first: time.Now()}
		t.servers[server] = s
	}
	s.calls++
	s.last = time.Now()
}

// tick counts a message of the stream.
func (t *tally) tick() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ticks++
}

// report says every half second who answered since, until ctx ends.
func (t *tally) report(ctx context.Context) error {
	for pause(ctx, 500*time.Millisecond) == nil {
		t.mu.Lock()
		var who []string
		for _, name := range slices.Sorted(maps.Keys(t.servers)) {
			s := t.servers[name]
			if n := s.calls - s.reported; n > 0 {
				who = append(who, fmt.Sprintf("%s ×%d", name, n))
			}
			s.reported = s.calls
		}
		failed := len(t.failed)
		t.mu.Unlock()
		say("  answered by %s; %d failed so far", strings.Join(who, ", "), failed)
	}
	return nil
}

// sumUp prints the whole, and is an error if calls failed.
func (t *tally) sumUp() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	fmt.Printf("\n%d calls, %d failed; %d messages on one stream\nseen over time:\n", t.calls, len(t.failed), t.ticks)
	for _, name := range slices.Sorted(maps.Keys(t.servers)) {
		s := t.servers[name]
		fmt.Printf("  %s  %4d calls  %4.1fs to %4.1fs\n", name, s.calls, s.first.Sub(began).Seconds(), s.last.Sub(began).Seconds())
	}
	if len(t.failed) > 0 {
		return fmt.Errorf("calls failed, the first one like this: %w", t.failed[0])
	}
	if t.ticks == 0 {
		return errors.New("the stream carried nothing")
	}
	return nil
}
