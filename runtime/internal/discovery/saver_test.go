package discovery

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cloudwego/kitex/pkg/discovery"
	"github.com/cloudwego/kitex/pkg/klog"

	"github.com/kitex-contrib/kitex-etcd/runtime/internal/record"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/roster"
	files "github.com/kitex-contrib/kitex-etcd/runtime/internal/snapshot"
)

// testSaver is a saver at work whose writes are kept; the clock is held.
type testSaver struct {
	*saver
	svc  *Service
	full atomic.Bool // the disk

	mu     sync.Mutex
	writes []write
}

type write struct {
	at        time.Time
	confirmed time.Time
	list      []discovery.Instance
}

// runSaver has a saver with one service run until the end of the test.
func runSaver(t *testing.T) *testSaver {
	d, svc := NewForTesting("s")
	s := &testSaver{svc: svc, saver: &saver{
		dir:     d,
		store:   &files.Store{Dir: t.TempDir(), MaxAge: 24 * time.Hour},
		changed: make(chan struct{}, 1),
		saved:   make(map[*Service]saved),
	}}
	s.save = func(_ string, confirmed time.Time, list []discovery.Instance) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.writes = append(s.writes, write{time.Now(), confirmed, list})
		if s.full.Load() {
			return syscall.ENOSPC
		}
		return nil
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.run(ctx)
	}()
	t.Cleanup(func() { cancel(); <-done })
	return s
}

// written waits until the saver has nothing to do, and returns all writes so far.
func (s *testSaver) written() []write {
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.writes)
}

// show publishes a list of n instances that etcd has just confirmed.
func (s *testSaver) show(n int) {
	list := make([]discovery.Instance, n)
	for i := range list {
		addr := fmt.Sprintf("10.0.0.%d:1", i)
		list[i] = roster.NewInstance("p/s/"+addr, record.Record{Network: "tcp", Address: addr, Weight: 10})
	}
	s.svc.synced.Store(time.Now().UnixNano())
	s.svc.ShowForTesting(list)
	s.notice()
}

// lines is a log.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lines) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Collect(strings.Lines(l.text.String()))
}

// TestAtMostOneWriteASecond: whatever the churn, and the last list is what stays. The first is written at once.
func TestAtMostOneWriteASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := runSaver(t)
		began := time.Now()
		for i := range 10_000 {
			s.show(1 + i%7)
			time.Sleep(time.Millisecond)
		}
		s.show(42)
		time.Sleep(time.Second)
		writes := s.written()
		if n := len(writes); n < 10 || n > 12 {
			t.Errorf("10 s of changes are %d writes", n)
		}
		if first := writes[0].at.Sub(began); first > time.Millisecond {
			t.Errorf("the first write came after %v", first)
		}
		for i, w := range writes[1:] {
			if gap := w.at.Sub(writes[i].at); gap < time.Second {
				t.Errorf("write %d came %v after the one before", i+1, gap)
			}
		}
		if last := writes[len(writes)-1]; len(last.list) != 42 {
			t.Errorf("the last write has %d instances, want 42", len(last.list))
		}
	})
}

// TestNoWriteWithoutAChange: a list that stays is written once, and again only when its file grows old although etcd
// confirms the list; not when nobody confirms it.
func TestNoWriteWithoutAChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := runSaver(t)
		s.show(3)
		confirm := func(d time.Duration) {
			for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(30 * time.Second) {
				s.svc.synced.Store(time.Now().UnixNano())
			}
		}
		confirm(6*time.Hour - 2*time.Minute)
		if n := len(s.written()); n != 1 {
			t.Fatalf("%d writes of a list that stays", n)
		}
		confirm(4 * time.Minute)
		if w := s.written(); len(w) != 2 || time.Since(w[1].confirmed) > 4*time.Minute {
			t.Fatalf("a file that grew old: %d writes", len(w))
		}
		time.Sleep(48 * time.Hour) // etcd is away
		if n := len(s.written()); n != 2 {
			t.Errorf("%d writes although etcd confirmed nothing", n-2)
		}
	})
}

// TestWhatEtcdDidNotSayIsNotWritten: a stored list does not become new by being used.
func TestWhatEtcdDidNotSayIsNotWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := runSaver(t)
		for _, phase := range []phase{unsynced, stored} {
			s.svc.swap(&snapshot{phase: phase})
			s.notice()
			synctest.Wait()
		}
		if n := len(s.written()); n != 0 {
			t.Errorf("%d writes", n)
		}
	})
}

// TestADiskThatFails is tried again every 10 s, not at every change, and then everything is written. The log has a line when
// that begins, and one when it ends.
func TestADiskThatFails(t *testing.T) {
	var log lines
	klog.SetOutput(&log)
	defer klog.SetOutput(os.Stderr)
	synctest.Test(t, func(t *testing.T) {
		s := runSaver(t)
		s.full.Store(true)
		for i := range 60 {
			s.show(1 + i)
			time.Sleep(time.Second)
		}
		if n := len(s.written()); n < 5 || n > 7 {
			t.Errorf("%d attempts in a minute", n)
		}
		s.full.Store(false)
		time.Sleep(saveRetry)
		if w := s.written(); len(w[len(w)-1].list) != 60 {
			t.Errorf("after that: %d instances", len(w[len(w)-1].list))
		}
		if got := log.take(); len(got) != 2 || !strings.Contains(got[0], syscall.ENOSPC.Error()) || !strings.Contains(got[1], "stored again") {
			t.Errorf("the log has %d lines: %q", len(got), got)
		}
	})
}

// TestAStoredListThatIsUnfit is a line in the log with the reason, and nothing is shown.
func TestAStoredListThatIsUnfit(t *testing.T) {
	var log lines
	klog.SetOutput(&log)
	defer klog.SetOutput(os.Stderr)
	d, svc := NewForTesting("s")
	svc.swap(&snapshot{})
	store := &files.Store{Dir: t.TempDir(), MaxAge: time.Hour, Endpoints: []string{"e:1"}, Prefix: "p", Program: "prog"}
	w := &watcher{Service: svc, saver: &saver{dir: d, store: store}, timing: defaultTiming, roster: roster.New("p/s/", 10, time.Minute), notify: func(ev Event) { t.Errorf("%+v", ev) }}

	w.restore() // there is none
	inst := files.Instance{Key: "p/s/a:1", Record: record.Record{Network: "tcp", Address: "a:1", Weight: 10}}
	for _, list := range [][]files.Instance{{inst}, nil} {
		if err := store.Save(1, "s", time.Now(), list); err != nil {
			t.Fatal(err)
		}
	}
	w.restore() // it is empty
	if got := log.take(); len(got) != 0 {
		t.Errorf("the log has %q", got)
	}
	if err := store.Save(1, "s", time.Now().Add(-2*time.Hour), []files.Instance{inst}); err != nil {
		t.Fatal(err)
	}
	w.restore()
	if got := log.take(); len(got) != 1 || !strings.Contains(got[0], "2h0m0s old") || !strings.Contains(got[0], store.Dir) {
		t.Errorf("the log has %q", got)
	}
	if svc.snapshot().phase != unsynced || !svc.Stored().IsZero() {
		t.Errorf("shown is %+v", svc.snapshot())
	}
}
