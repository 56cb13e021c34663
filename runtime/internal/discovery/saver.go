package discovery

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/cloudwego/kitex/pkg/discovery"
	"github.com/cloudwego/kitex/pkg/klog"

	"github.com/kitex-contrib/kitex-etcd/runtime/internal/record"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/roster"
	files "github.com/kitex-contrib/kitex-etcd/runtime/internal/snapshot"
)

const (
	leastSaveGap = time.Second      // between two writes for one service
	saveRetry    = 10 * time.Second // after a write that failed, for all services
	maxLookGap   = time.Minute      // between two looks for files that grow old
)

// saver writes the lists of a Directory into files, for the next process that starts while etcd is away. Publications make it
// look; its goroutine owns the rest of it. A disk that fails holds up nothing else.
type saver struct {
	dir   *Directory
	store *files.Store
	save  func(service string, confirmed time.Time, list []discovery.Instance) error

	changed chan struct{} // holds a token when there is something new

	saved   map[*Service]saved
	failing bool      // the last write failed
	retryAt time.Time // nothing is written before
}

// saved is what was last written for a service.
type saved struct {
	list      []discovery.Instance
	confirmed time.Time
	at        time.Time
}

func newSaver(d *Directory) *saver {
	program := os.Args[0]
	if path, err := os.Executable(); err == nil {
		program = path
	}
	s := &saver{
		dir: d,
		store: &files.Store{
			Dir:       d.cfg.SnapshotDir,
			MaxAge:    d.cfg.SnapshotMaxAge,
			Endpoints: strings.Split(d.link.Target(), ","),
			Prefix:    d.cfg.Prefix,
			Program:   filepath.Base(program),
		},
		changed: make(chan struct{}, 1),
		saved:   make(map[*Service]saved),
	}
	s.save = s.write
	return s
}

// notice makes the saver look at the lists. It is called on the way of a publication, and costs next to nothing.
func (s *saver) notice() {
	if s == nil {
		return
	}
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

func (s *saver) run(ctx context.Context) {
	s.store.Sweep(time.Now())
	timer := time.NewTimer(s.lookGap())
	defer timer.Stop()
	for {
		select {
		case <-s.changed:
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		timer.Reset(time.Until(s.look(ctx)))
	}
}

// A list that does not change is confirmed again and again, but its file is not. So the file is written again after a quarter of the
// maximum age.
func (s *saver) renewal() time.Duration { return max(s.store.MaxAge/4, leastSaveGap) }

func (s *saver) lookGap() time.Duration { return min(maxLookGap, s.renewal()) }

// look writes what has to be written now, and says when there may be something again.
func (s *saver) look(ctx context.Context) (next time.Time) {
	next = time.Now().Add(s.lookGap())
	services := *s.dir.services.Load()
	maps.DeleteFunc(s.saved, func(svc *Service, _ saved) bool { return services[svc.name] != svc })
	for _, svc := range services {
		if ctx.Err() != nil {
			return next
		}
		now := time.Now()
		if now.Before(s.retryAt) {
			return s.retryAt
		}
		confirmed := svc.Synced() // the list, read after it, is as new or newer
		snap := svc.snapshot()
		if snap.phase < current || confirmed.IsZero() { // not what etcd said
			continue
		}
		last, known := s.saved[svc]
		grown := confirmed.Sub(last.confirmed) >= s.renewal()
		if known && !grown && roster.Same(last.list, snap.instances) {
			continue
		}
		if due := last.at.Add(leastSaveGap); now.Before(due) {
			if due.Before(next) {
				next = due
			}
			continue
		}
		if err := s.save(svc.name, confirmed, snap.instances); err != nil {
			s.fail(err)
			return s.retryAt
		}
		s.saved[svc] = saved{snap.instances, confirmed, now}
		if s.failing {
			s.failing = false
			klog.Infof("etcd: the lists of services are stored again in %s", s.store.Dir)
		}
	}
	return next
}

func (s *saver) fail(err error) {
	s.retryAt = time.Now().Add(saveRetry)
	if !s.failing {
		s.failing = true
		klog.Warnf("etcd: %v; the lists of services cannot be stored in %s, and a start while etcd is away will not find them",
			err, s.store.Dir)
	}
}

func (s *saver) write(service string, confirmed time.Time, list []discovery.Instance) error {
	instances := make([]files.Instance, len(list))
	for i, inst := range list {
		inst := inst.(*roster.Instance)
		instances[i] = files.Instance{Key: inst.Key(), Record: record.Record{
			Network: inst.Address().Network(),
			Address: inst.Address().String(),
			Weight:  float64(inst.Weight()),
			Tags:    inst.Tags(),
		}}
	}
	return s.store.Save(s.dir.cluster.Load(), service, confirmed, instances)
}
