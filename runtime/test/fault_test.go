package test

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/connectivity"

	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
	"github.com/kitex-contrib/kitex-etcd/runtime/etcdtest"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/faultproxy"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/record"
	"github.com/kitex-contrib/kitex-etcd/runtime/retry"
)

// The fault suite: what breaks in production is broken here, on a real etcd, and registrations have to be right in the
// end. Faults that last for minutes run when KITEX_ETCD_LONG is set; the same faults run shorter without it.
var long = os.Getenv("KITEX_ETCD_LONG") != ""

const (
	faultAddr = "127.0.0.1:8888"
	faultKey  = etcd.DefaultPrefix + "/Hello/" + faultAddr
)

func TestFaultLeaseRevokedBehindItsBack(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Start(t)
	cli := etcdClient(t, cluster.Endpoints())
	conn, events := connectRegistry(t, cluster.Endpoints())
	info := serverInfo("Hello", faultAddr)
	mustRegister(t, conn.Registry(), info)
	for i := range 3 {
		lease := leaseOf(t, cli, faultKey)
		begin := time.Now()
		if _, err := cli.Revoke(testContext(t), lease); err != nil {
			t.Fatal(err)
		}
		events.wait(t, etcd.EventRestored, i+1)
		t.Logf("back after %v", time.Since(begin))
		if leaseOf(t, cli, faultKey) == lease {
			t.Error("the record stands under the lease that was revoked")
		}
	}
	if n := events.count(etcd.EventLeaseLost); n != 3 {
		t.Errorf("%d events %q, want 3", n, etcd.EventLeaseLost)
	}
	mustDeregister(t, conn.Registry(), info)
	awaitNoLease(t, cli)
}

func TestFaultKeyDeletedBehindItsBack(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Start(t)
	cli := etcdClient(t, cluster.Endpoints())
	conn, events := connectRegistry(t, cluster.Endpoints())
	r := conn.Registry()
	// One record of a service is watched otherwise than several.
	mustRegister(t, r, serverInfo("Hello", "127.0.0.1:1"), serverInfo("Echo", "127.0.0.1:2"), serverInfo("Echo", "127.0.0.1:3"))
	want := 0
	for _, key := range []string{"Hello/127.0.0.1:1", "Echo/127.0.0.1:2", "Echo/127.0.0.1:3", "Hello/127.0.0.1:1"} {
		begin := time.Now()
		if _, err := cli.Delete(testContext(t), etcd.DefaultPrefix+"/"+key); err != nil {
			t.Fatal(err)
		}
		want++
		events.wait(t, etcd.EventRestored, want)
		t.Logf("back after %v", time.Since(begin))
		if getKey(t, cli, etcd.DefaultPrefix+"/"+key) == nil {
			t.Errorf("no record at %s", key)
		}
	}
	if lost, lease := events.count(etcd.EventRecordLost), events.count(etcd.EventLeaseLost); lost != want || lease != 0 {
		t.Errorf("%d records and %d leases lost, want %d and 0", lost, lease, want)
	}
}

// TestFaultEtcdDown: longer than three TTLs and than any budget of attempts.
func TestFaultEtcdDown(t *testing.T) {
	outages := []time.Duration{4 * time.Second}
	if long {
		outages = []time.Duration{90 * time.Second, 10 * time.Minute}
	}
	for _, outage := range outages {
		for _, wipe := range []bool{false, true} {
			t.Run(fmt.Sprintf("outage=%v/wiped=%v", outage, wipe), func(t *testing.T) {
				t.Parallel()
				cluster := etcdtest.Start(t)
				cli := etcdClient(t, cluster.Endpoints())
				opts := []etcd.Option{etcd.WithLeaseTTL(time.Second)}
				if long {
					opts = append(opts, etcd.WithLeaseTTL(etcd.DefaultLeaseTTL), etcd.WithRetry(retry.NewRetryConfig()))
				}
				conn, events := connectRegistry(t, cluster.Endpoints(), opts...)
				for range 20 { // a rebuilt etcd begins again with lower revisions
					put(t, cli, "Other", faultAddr)
				}
				mustRegister(t, conn.Registry(), serverInfo("Hello", faultAddr), serverInfo("Echo", faultAddr))
				old := leaseOf(t, cli, faultKey)
				cluster.Stop()
				if wipe {
					if err := cluster.Wipe(); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(outage) // the outage itself
				if n := events.count(etcd.EventRepairFailed); n != 0 {
					t.Errorf("%d repairs were given up while nothing was known to be lost", n)
				}
				restart(t, cluster)
				begin := time.Now()
				cli = etcdClient(t, cluster.Endpoints()) // the old one, on gRPC's defaults, would be back minutes later
				if wipe {
					events.wait(t, etcd.EventRestored, 2)
					t.Logf("back %v after etcd answered", time.Since(begin))
					if n := events.count(etcd.EventLeaseLost); n != 1 {
						t.Errorf("%d leases lost, want 1", n)
					}
				} else {
					waitKey(t, cli, faultKey, func(found bool, _ clientv3.LeaseID) bool { return found })
				}
				lease := leaseOf(t, cli, faultKey)
				waitRenewed(t, cli, lease)
				t.Logf("renewed %v after etcd answered, same lease: %v", time.Since(begin), lease == old)
				// The watches work on.
				n := events.count(etcd.EventRestored)
				if _, err := cli.Delete(testContext(t), faultKey); err != nil {
					t.Fatal(err)
				}
				events.wait(t, etcd.EventRestored, n+1)
			})
		}
	}
}

// TestFaultEtcdDownWhileRepairing: the outage comes when there is work to do, and outlasts the budget of attempts.
func TestFaultEtcdDownWhileRepairing(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Start(t)
	conn, events := connectRegistry(t, cluster.Endpoints(), etcd.WithBackgroundRegister(),
		etcd.WithRetry(retry.NewRetryConfig(retry.WithRetryDelay(50*time.Millisecond), retry.WithMaxAttemptTimes(2), retry.WithObserveDelay(time.Hour))))
	cluster.Stop()
	mustRegister(t, conn.Registry(), serverInfo("Hello", faultAddr))
	events.wait(t, etcd.EventRepairFailed, 1) // an hour would pass before the next attempt
	restart(t, cluster)
	begin := time.Now()
	events.wait(t, etcd.EventRegistered, 1)
	t.Logf("registered %v after etcd answered", time.Since(begin))
}

func TestFaultDeregisterWhileEtcdIsDown(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Start(t)
	conn, events := connectRegistry(t, cluster.Endpoints(), etcd.WithLeaseTTL(time.Hour)) // the lease removes nothing
	info, other := serverInfo("Hello", faultAddr), serverInfo("Echo", faultAddr)
	mustRegister(t, conn.Registry(), info, other)
	cluster.Stop()
	begin := time.Now()
	err := conn.Registry().Deregister(info)
	t.Logf("Deregister returned after %v: %v", time.Since(begin), err)
	if err == nil {
		t.Error("Deregister says that it removed the record")
	}
	mustDeregister(t, conn.Registry(), info) // again: nothing to do
	restart(t, cluster)
	begin = time.Now()
	events.wait(t, etcd.EventDeregistered, 2) // one said that it failed
	t.Logf("removed %v after etcd answered", time.Since(begin))
	cli := etcdClient(t, cluster.Endpoints())
	if getKey(t, cli, faultKey) != nil {
		t.Error("the record stands")
	}
	if getKey(t, cli, etcd.DefaultPrefix+"/Echo/"+faultAddr) == nil {
		t.Error("the other server's record is gone")
	}
}

func TestFaultLeaderKilled(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Start(t, etcdtest.WithMembers(3))
	cli := etcdClient(t, cluster.Endpoints())
	conn, events := connectRegistry(t, cluster.Endpoints())
	mustRegister(t, conn.Registry(), serverInfo("Hello", faultAddr))
	for range 2 {
		leader, err := cluster.Leader(testContext(t))
		if err != nil {
			t.Fatal(err)
		}
		leader.Kill()
		if _, err := cluster.Leader(testContext(t)); err != nil {
			t.Fatal(err)
		}
		waitRenewed(t, cli, leaseOf(t, cli, faultKey))
		if err := leader.Start(); err != nil {
			t.Fatal(err)
		}
	}
	if n := events.count(etcd.EventLeaseLost) + events.count(etcd.EventRecordLost); n != 0 {
		t.Errorf("%d losses, want none", n)
	}
	n := events.count(etcd.EventRestored)
	if _, err := cli.Delete(testContext(t), faultKey); err != nil {
		t.Fatal(err)
	}
	events.wait(t, etcd.EventRestored, n+1)
}

// TestFaultLeaseInABlackHole: a connection that takes everything and delivers nothing is replaced before the lease ends.
func TestFaultLeaseInABlackHole(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Start(t)
	cli := etcdClient(t, cluster.Endpoints())
	proxy := faultproxy.Start(t, cluster.Endpoints()[0])
	conn, events := connectRegistry(t, []string{proxy.Addr()}, etcd.WithLeaseTTL(4*time.Second))
	mustRegister(t, conn.Registry(), serverInfo("Hello", faultAddr))
	lease := leaseOf(t, cli, faultKey)
	proxy.BlackHole()
	proxy.Forward() // the open connections stay dead, new ones work
	begin := time.Now()
	for c, state := conn.Client().ActiveConnection(), connectivity.Ready; ; state = c.GetState() {
		if !c.WaitForStateChange(testContext(t), state) {
			t.Fatal("no new connection")
		}
		if c.GetState() == connectivity.Ready {
			break
		}
	}
	t.Logf("a new connection after %v", time.Since(begin))
	waitRenewed(t, cli, lease)
	if n := events.count(etcd.EventLeaseLost); n != 0 {
		t.Errorf("the lease was lost %d times, want never", n)
	}
}

// TestFaultBlackHoleOutlivesTheLease: the lease ends meanwhile.
func TestFaultBlackHoleOutlivesTheLease(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Start(t)
	cli := etcdClient(t, cluster.Endpoints())
	proxy := faultproxy.Start(t, cluster.Endpoints()[0])
	conn, events := connectRegistry(t, []string{proxy.Addr()})
	mustRegister(t, conn.Registry(), serverInfo("Hello", faultAddr))
	proxy.BlackHole()
	waitKey(t, cli, faultKey, func(found bool, _ clientv3.LeaseID) bool { return !found })
	proxy.Forward()
	begin := time.Now()
	events.wait(t, etcd.EventRestored, 1)
	t.Logf("back after %v", time.Since(begin))
}

// TestFaultHeldBytes: the network holds everything for longer than the lease, then delivers it.
func TestFaultHeldBytes(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Start(t)
	cli := etcdClient(t, cluster.Endpoints())
	proxy := faultproxy.Start(t, cluster.Endpoints()[0])
	conn, events := connectRegistry(t, []string{proxy.Addr()})
	info := serverInfo("Hello", faultAddr)
	mustRegister(t, conn.Registry(), info)
	proxy.Pause()
	waitKey(t, cli, faultKey, func(found bool, _ clientv3.LeaseID) bool { return !found })
	proxy.Forward()
	begin := time.Now()
	events.wait(t, etcd.EventRestored, 1)
	t.Logf("back after %v", time.Since(begin))
	mustDeregister(t, conn.Registry(), info)
	if getKey(t, cli, faultKey) != nil {
		t.Error("the record stands after Deregister")
	}
}

// TestFaultOldProcessDeregistersLate: of two services, the new process has taken over one.
func TestFaultOldProcessDeregistersLate(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Start(t)
	cli := etcdClient(t, cluster.Endpoints())
	oldConn, oldEvents := connectRegistry(t, cluster.Endpoints())
	newConn, newEvents := connectRegistry(t, cluster.Endpoints())
	r := registryOf(oldConn.ServerOptions("Hello", "Echo"))
	const times = 100
	for i := range times {
		addr := fmt.Sprintf("127.0.0.1:%d", i+1)
		info, successor := serverInfo("", addr), serverInfo("Hello", addr)
		mustRegister(t, r, info)
		mustRegister(t, newConn.Registry(), successor)
		if i%2 == 0 { // the old process may have seen it or not
			oldEvents.wait(t, etcd.EventTakenOver, i/2+1)
		}
		mustDeregister(t, r, info)
		if getKey(t, cli, record.Key(etcd.DefaultPrefix, "Hello", addr)) == nil {
			t.Fatalf("the old process's Deregister removed the new one's record of %s", addr)
		}
		if getKey(t, cli, record.Key(etcd.DefaultPrefix, "Echo", addr)) != nil {
			t.Fatalf("the old process's own record of %s stands after Deregister", addr)
		}
	}
	if lost := newEvents.count(etcd.EventRecordLost); lost != 0 {
		t.Errorf("the new process lost %d records", lost)
	}
}

// TestFaultLeaseRevokedWhenOneIsTaken: what another process wrote in the same moment is left alone, the rest restored.
func TestFaultLeaseRevokedWhenOneIsTaken(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Start(t)
	cli := etcdClient(t, cluster.Endpoints())
	conn, events := connectRegistry(t, cluster.Endpoints())
	r := registryOf(conn.ServerOptions("Hello", "Echo"))
	for i := range 20 {
		info := serverInfo("", faultAddr)
		mustRegister(t, r, info)
		lease := leaseOf(t, cli, faultKey)
		other := grant(t, cli, 60)
		put(t, cli, "Echo", faultAddr, clientv3.WithLease(other))
		if _, err := cli.Revoke(testContext(t), lease); err != nil {
			t.Fatal(err)
		}
		events.wait(t, etcd.EventRestored, i+1)
		events.wait(t, etcd.EventTakenOver, i+1)
		if leaseOf(t, cli, etcd.DefaultPrefix+"/Echo/"+faultAddr) != other {
			t.Fatal("the other's record was overwritten")
		}
		mustDeregister(t, r, info)
		if getKey(t, cli, faultKey) != nil {
			t.Fatal("the record stands after Deregister")
		}
	}
}

// TestFaultTwoProcessesOnOneAddress: the newer wins, the older says so once and takes over again when it is alone.
func TestFaultTwoProcessesOnOneAddress(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Start(t)
	cli := etcdClient(t, cluster.Endpoints())
	older, events := connectRegistry(t, cluster.Endpoints(), etcd.WithRetry(retry.NewRetryConfig(retry.WithObserveDelay(time.Second))))
	newer, newerEvents := connectRegistry(t, cluster.Endpoints())
	mustRegister(t, older.Registry(), serverInfo("Hello", faultAddr))
	oldLease := leaseOf(t, cli, faultKey)
	info := serverInfo("Hello", faultAddr)
	mustRegister(t, newer.Registry(), info)
	events.wait(t, etcd.EventTakenOver, 1)
	newLease := leaseOf(t, cli, faultKey)
	if newLease == oldLease {
		t.Fatal("the record stands under the older process's lease")
	}
	// The newer one repairs its record; the older does not get in between.
	for i := range 5 {
		if _, err := cli.Delete(testContext(t), faultKey); err != nil {
			t.Fatal(err)
		}
		newerEvents.wait(t, etcd.EventRestored, i+1)
		if got := leaseOf(t, cli, faultKey); got != newLease {
			t.Fatalf("the record stands under lease %x, want the newer process's, %x", got, newLease)
		}
	}
	mustDeregister(t, newer.Registry(), info)
	events.wait(t, etcd.EventRestored, 1)
	if leaseOf(t, cli, faultKey) != oldLease {
		t.Error("the record is not the older process's, which is alone now")
	}
	if n := events.count(etcd.EventTakenOver); n != 1 {
		t.Errorf("the older process said %d times that it was taken over, want once", n)
	}
}

func TestFaultDeregisterRacesRepair(t *testing.T) {
	t.Parallel()
	const times = 1000
	cluster := etcdtest.Start(t)
	cli := etcdClient(t, cluster.Endpoints())
	conn, _ := connectRegistry(t, cluster.Endpoints())
	r := conn.Registry()
	stays := serverInfo("Echo", faultAddr) // keeps the lease in use
	mustRegister(t, r, stays)
	for i := range times {
		addr := fmt.Sprintf("127.0.0.1:%d", i+1)
		key := record.Key(etcd.DefaultPrefix, "Hello", addr)
		info := serverInfo("Hello", addr)
		mustRegister(t, r, info)
		var fault sync.WaitGroup
		fault.Go(func() {
			var err error
			if i%10 == 0 {
				_, err = cli.Revoke(context.Background(), leaseOf(t, cli, etcd.DefaultPrefix+"/Echo/"+faultAddr))
			} else {
				_, err = cli.Delete(context.Background(), key)
			}
			if err != nil {
				t.Error(err)
			}
		})
		if i%2 == 0 {
			fault.Wait() // the repair begins before Deregister, or beside it
		}
		mustDeregister(t, r, info)
		fault.Wait()
		waitKey(t, cli, etcd.DefaultPrefix+"/Echo/"+faultAddr, func(found bool, _ clientv3.LeaseID) bool { return found })
	}
	resp, err := cli.Get(testContext(t), etcd.DefaultPrefix+"/Hello/", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	if resp.Count != 0 {
		t.Errorf("%d of %d deregistered servers came back", resp.Count, times)
	}
}

func TestFaultDeregisterBeforeRegisterTwiceThreeTimes(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Start(t)
	conn, _ := connectRegistry(t, cluster.Endpoints())
	r := conn.Registry()
	info := serverInfo("Hello", faultAddr)
	mustDeregister(t, r, info)
	mustRegister(t, r, info)
	mustDeregister(t, r, info, info, info)
}
