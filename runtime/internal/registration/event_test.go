package registration

import (
	"testing"
	"time"

	"github.com/cloudwego/kitex/pkg/registry"
	"github.com/cloudwego/kitex/pkg/utils"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/kitex-contrib/kitex-etcd/runtime/etcdtest"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/link"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/record"
	"github.com/kitex-contrib/kitex-etcd/runtime/retry"
)

// TestAnEventComesAfterTheState: when the handler hears of an event, Registered shows what it says.
func TestAnEventComesAfterTheState(t *testing.T) {
	const prefix, service, addr = "test", "Hello", "10.0.0.7:8888"
	cluster := etcdtest.Start(t)
	l, err := link.New(link.Config{Etcd: &clientv3.Config{Endpoints: cluster.Endpoints(), DialTimeout: 3 * time.Second}})
	if err != nil {
		t.Fatal(err)
	}
	type sight struct {
		event EventType
		state State // 0: Registered does not show the record
	}
	seen := make(chan sight, 100)
	var r *Registrar
	r = New(Config{Link: l, Prefix: prefix, LeaseTTL: 10 * time.Second, Retry: retry.NewRetryConfig(), Notify: func(ev Event) {
		s := sight{event: ev.Type}
		if list, _, _ := r.Registered(time.Now()); len(list) > 0 {
			s.state = list[0].State
		}
		seen <- s
	}})
	closed := false
	end := func() {
		if !closed {
			closed = true
			l.Refuse()
			if err := r.Close(); err != nil {
				t.Error(err)
			}
			l.Stop()
			if err := l.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	defer end()
	expect := func(event EventType, state State) {
		t.Helper()
		select {
		case s := <-seen:
			if want := (sight{event, state}); s != want {
				t.Fatalf("saw %+v, want %+v", s, want)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("no event %v", event)
		}
	}

	key := record.Key(prefix, service, addr)
	info := &registry.Info{ServiceName: service, Addr: utils.NewNetAddr("tcp", addr)}
	value := `{"network":"tcp","address":"` + addr + `","weight":10,"tags":null}`
	if err := r.Register(info, []Record{{Service: service, Key: key, Value: value}}, nil, false); err != nil {
		t.Fatal(err)
	}
	expect(Registered, Standing)

	ctx, cli := t.Context(), l.Current()
	mark := record.MarkKey(prefix, service, addr)
	for _, step := range []struct {
		do   func() error
		want []sight
	}{
		{func() error { _, err := cli.Put(ctx, mark, `{"drain":true}`); return err }, []sight{{Drained, DrainedOut}}},
		{func() error { _, err := cli.Delete(ctx, mark); return err }, []sight{{Undrained, Standing}}},
		{func() error { _, err := cli.Delete(ctx, key); return err }, []sight{{RecordLost, Lost}, {Restored, Standing}}},
	} {
		if err := step.do(); err != nil {
			t.Fatal(err)
		}
		for _, s := range step.want {
			expect(s.event, s.state)
		}
	}

	resp, err := cli.Get(ctx, key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cli.Revoke(ctx, clientv3.LeaseID(resp.Kvs[0].Lease)); err != nil {
		t.Fatal(err)
	}
	// The end of the lease is seen by the watch of the record first, or by the keeper.
	for back := false; !back; {
		select {
		case s := <-seen:
			want := Lost
			if back = s.event == Restored; back {
				want = Standing
			}
			if s.state != want {
				t.Fatalf("saw %+v, want the state %v", s, want)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("not restored")
		}
	}

	other, err := cli.Grant(ctx, 60)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cli.Put(ctx, key, value, clientv3.WithLease(other.ID)); err != nil {
		t.Fatal(err)
	}
	expect(TakenOver, Taken)
	if _, err := cli.Revoke(ctx, other.ID); err != nil {
		t.Fatal(err)
	}
	expect(Restored, Standing)

	end()
	expect(Deregistered, 0)
}
