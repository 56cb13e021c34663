package discovery

import (
	"time"

	"github.com/cloudwego/kitex/pkg/klog"

	"github.com/kitex-contrib/kitex-etcd/runtime/internal/link"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/roster"
)

// awaiting runs ask, which waits for etcd and touches nothing of the watcher. When that is the first answer of etcd for
// this service, and it takes its time, the list that an earlier process stored is shown meanwhile.
func (w *watcher) awaiting(ask func()) {
	if w.saver == nil || w.restored || w.snapshot().phase != unsynced {
		ask()
		return
	}
	answered := make(chan struct{})
	go func() { // ends before this function does
		defer close(answered)
		ask()
	}()
	patience := time.NewTimer(time.Until(w.began.Add(w.timing.Stored)))
	defer patience.Stop()
	select {
	case <-answered:
		return
	case <-patience.C:
	}
	if !link.Refused(w.lostFor) { // a refusal is an answer
		w.restored = true
		w.restore()
	}
	<-answered
}

// restore shows the stored list, if there is one that is fit to be used. An empty one is not: to wait for etcd is better.
func (w *watcher) restore() {
	now := time.Now()
	list, path, err := w.saver.store.Load(w.name, now)
	if err != nil {
		klog.Warnf("etcd: service %s: no stored list is used: %v", w.name, err)
		return
	}
	if list == nil || len(list.Instances) == 0 {
		return
	}
	instances := make([]*roster.Instance, len(list.Instances))
	for i, inst := range list.Instances {
		instances[i] = roster.NewInstance(inst.Key, inst.Record)
	}
	w.roster.Seed(instances)
	shown, _ := w.roster.Publish()
	w.swap(&snapshot{instances: shown, phase: stored, confirmed: list.Confirmed})
	for _, f := range w.attached() {
		f.Changed()
	}
	w.settled.Store(w.snapshot())
	klog.Warnf("etcd: service %s: no answer within %v; until there is one, %d instances are used that etcd confirmed %v ago (%s)",
		w.name, w.timing.Stored, len(shown), max(0, now.Sub(list.Confirmed)).Round(time.Second), path)
	w.notify(Event{Type: SnapshotUsed, Service: w.name, Err: w.lostFor})
}

// Stored returns when etcd confirmed the instances, if they are from a file because etcd has not answered yet; else zero.
func (s *Service) Stored() time.Time { return s.snapshot().confirmed }
