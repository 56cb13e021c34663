package test

import (
	"fmt"
	"testing"
	"time"

	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
	"github.com/kitex-contrib/kitex-etcd/runtime/etcdtest"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/faultproxy"
)

// awaitStates waits until the records of conn are in these states, in the order of their keys, and returns what it last saw.
func awaitStates(t testing.TB, conn *etcd.Conn, want ...etcd.RegisteredState) []etcd.RegisteredStatus {
	t.Helper()
	for begin := time.Now(); ; time.Sleep(2 * time.Millisecond) { // memory is read: there is no event for "unknown"
		got := conn.Registered()
		var states []etcd.RegisteredState
		for _, r := range got {
			states = append(states, r.State)
		}
		if fmt.Sprint(states) == fmt.Sprint(want) {
			return got
		}
		if time.Since(begin) > patience {
			t.Fatalf("the states are %v, want %v", states, want)
		}
	}
}

// TestRegistered: a server that is cut off from etcd is unknown once its lease may have ended, and standing when it is back.
func TestRegistered(t *testing.T) {
	cluster := etcdtest.Start(t)
	proxy := faultproxy.Start(t, cluster.Endpoints()[0])
	conn := connectTo(t, []string{proxy.Addr()}, etcd.WithLeaseTTL(2*time.Second))

	begin := time.Now()
	r, info := conn.Registry(), serverInfo("Hello", markedAddr)
	mustRegister(t, r, info)
	got := conn.Registered() // at once: it is known when Register returns
	if len(got) != 1 || got[0].State != etcd.StateStanding || got[0].Key != markedKey || got[0].Address != markedAddr ||
		got[0].Service != "Hello" || got[0].TTL != 2*time.Second || got[0].Confirmed.Before(begin) || got[0].Confirmed.After(time.Now()) {
		t.Fatalf("after Register: %+v", got)
	}
	for conn.Registered()[0].Confirmed.Equal(got[0].Confirmed) { // until a renewal has moved it on
		if time.Since(begin) > patience {
			t.Fatal("no renewal moved Confirmed on")
		}
		time.Sleep(2 * time.Millisecond)
	}

	proxy.BlackHole()
	unknown := awaitStates(t, conn, etcd.StateUnknown)[0]
	if age := time.Since(unknown.Confirmed); age < unknown.TTL {
		t.Errorf("unknown %v after etcd confirmed the lease, of %v", age, unknown.TTL)
	}

	proxy.Forward()
	awaitStates(t, conn, etcd.StateStanding)
	if err := r.Deregister(info); err != nil {
		t.Fatal(err)
	}
	if got := conn.Registered(); len(got) != 0 {
		t.Errorf("after Deregister: %+v", got)
	}
}

// TestRegisteredLostTakenDrained: the other states.
func TestRegisteredLostTakenDrained(t *testing.T) {
	cluster := etcdtest.Start(t)
	conn := connect(t, cluster)
	mustRegister(t, conn.Registry(), serverInfo("Hello", markedAddr))
	awaitStates(t, conn, etcd.StateStanding)

	putMark(t, conn.Client(), markKey, `{"drain":true}`)
	awaitStates(t, conn, etcd.StateDrained)
	endMark(t, conn.Client(), markKey)
	awaitStates(t, conn, etcd.StateStanding)

	other := connect(t, cluster)
	mustRegister(t, other.Registry(), serverInfo("Hello", markedAddr))
	awaitStates(t, conn, etcd.StateTaken)

	cluster.Stop()
	waiting := connect(t, cluster, etcd.WithBackgroundRegister())
	mustRegister(t, waiting.Registry(), serverInfo("Hello", "127.0.0.1:9999"))
	awaitStates(t, waiting, etcd.StateLost)
	if waiting.Registered()[0].Confirmed != (time.Time{}) {
		t.Error("etcd confirmed a lease that it never granted")
	}
	if err := cluster.Start(); err != nil {
		t.Fatal(err)
	}
	awaitStates(t, waiting, etcd.StateStanding)
}

// TestRegisteredNeverWaits: readers and the registrar do not disturb each other.
func TestRegisteredNeverWaits(t *testing.T) {
	conn := connect(t, etcdtest.Start(t))
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				for _, r := range conn.Registered() {
					if !r.State.Known() {
						t.Errorf("%+v", r)
					}
				}
			}
		}
	}()
	r := conn.Registry()
	for i := range 20 {
		info := serverInfo("Hello", fmt.Sprintf("127.0.0.1:%d", 9000+i))
		mustRegister(t, r, info)
		if got := conn.Registered(); len(got) != 1 {
			t.Errorf("after Register: %+v", got)
		}
		if err := r.Deregister(info); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	<-done
	if (*etcd.Conn)(nil).Registered() != nil {
		t.Error("a nil Conn has records")
	}
}
