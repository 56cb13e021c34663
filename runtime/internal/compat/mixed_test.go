package compat

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/cloudwego/kitex/pkg/discovery"
	"github.com/cloudwego/kitex/pkg/registry"
	old "github.com/kitex-contrib/registry-etcd"
	oldretry "github.com/kitex-contrib/registry-etcd/retry"
	clientv3 "go.etcd.io/etcd/client/v3"

	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
	"github.com/kitex-contrib/kitex-etcd/runtime/etcdtest"
	"github.com/kitex-contrib/kitex-etcd/runtime/retry"
)

// side is one of the two libraries: the same calls, which is the point.
type side struct {
	name     string
	registry func(endpoints []string, prefix string) (registry.Registry, error)
	resolver func(endpoints []string, prefix string) (discovery.Resolver, error)
}

var (
	ours = side{
		"kitex-etcd",
		func(e []string, p string) (registry.Registry, error) {
			r := retry.NewRetryConfig(retry.WithObserveDelay(time.Second), retry.WithRetryDelay(time.Second))
			return etcd.NewEtcdRegistryWithRetry(e, r, etcd.WithEtcdServicePrefix(p), etcd.WithDrainDelay(0))
		},
		func(e []string, p string) (discovery.Resolver, error) {
			return etcd.NewEtcdResolver(e, etcd.WithEtcdServicePrefix(p), etcd.WithDefaultWeight(7))
		},
	}
	theirs = side{
		"registry-etcd",
		func(e []string, p string) (registry.Registry, error) {
			r := oldretry.NewRetryConfig(oldretry.WithObserveDelay(time.Second), oldretry.WithRetryDelay(time.Second))
			return old.NewEtcdRegistryWithRetry(e, r, old.WithEtcdServicePrefix(p))
		},
		func(e []string, p string) (discovery.Resolver, error) {
			return old.NewEtcdResolver(e, old.WithEtcdServicePrefix(p), old.WithDefaultWeight(7))
		},
	}
)

const prefix = "kitex/registry-etcd"

func info(port int, weight int, tags map[string]string) *registry.Info {
	return &registry.Info{ServiceName: "Hello", Addr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port}, Weight: weight, Tags: tags}
}

// instances resolves Hello and prints what was found; an empty service is an error to registry-etcd.
func instances(t *testing.T, r discovery.Resolver) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	res, err := r.Resolve(ctx, "Hello")
	if err != nil && ctx.Err() != nil {
		t.Fatal(err)
	}
	var found []string
	for _, in := range res.Instances {
		zone, _ := in.Tag("zone")
		found = append(found, fmt.Sprintf("%s://%s weight %d zone %s", in.Address().Network(), in.Address(), in.Weight(), zone))
	}
	slices.Sort(found)
	return found
}

// eventually waits until what instances finds is want.
func eventually(t *testing.T, r discovery.Resolver, want ...string) {
	t.Helper()
	var got []string
	for deadline := time.Now().Add(15 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if got = instances(t, r); slices.Equal(got, want) {
			return
		}
	}
	t.Fatalf("found %q, want %q", got, want)
}

// TestEachFindsTheOther: in a fleet of both, each side's clients see every server with its weight and tags, and see it
// leave, whoever registered it.
func TestEachFindsTheOther(t *testing.T) {
	for _, p := range []string{prefix, "/services", "a//b/"} {
		t.Run(p, func(t *testing.T) {
			cluster := etcdtest.Start(t)
			sides := map[string]side{ours.name: ours, theirs.name: theirs}
			registries, resolvers := map[string]registry.Registry{}, map[string]discovery.Resolver{}
			for name, s := range sides {
				var err error
				if registries[name], err = s.registry(cluster.Endpoints(), p); err != nil {
					t.Fatal(err)
				}
				if resolvers[name], err = s.resolver(cluster.Endpoints(), p); err != nil {
					t.Fatal(err)
				}
			}
			infos := map[string]*registry.Info{
				ours.name:   info(1001, 20, map[string]string{"zone": "a"}),
				theirs.name: info(1002, 0, map[string]string{"zone": "b"}),
			}
			found := map[string]string{
				ours.name:   "tcp://127.0.0.1:1001 weight 20 zone a",
				theirs.name: "tcp://127.0.0.1:1002 weight 7 zone b",
			}
			for name := range sides {
				if err := registries[name].Register(infos[name]); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
			}
			for name := range sides {
				eventually(t, resolvers[name], slices.Sorted(maps.Values(found))...)
			}
			for name := range sides {
				if err := registries[name].Deregister(infos[name]); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				delete(found, name)
				for _, resolver := range resolvers {
					eventually(t, resolver, slices.Sorted(maps.Values(found))...)
				}
			}
		})
	}
}

// TestBothOnOneAddress: while a server is exchanged for one of the other library on the same address, the two neither
// fight over the record nor lose it: it is written a bounded number of times and stands at the end.
func TestBothOnOneAddress(t *testing.T) {
	for name, order := range map[string][2]side{"ours follows": {theirs, ours}, "theirs follows": {ours, theirs}} {
		t.Run(name, func(t *testing.T) {
			cluster := etcdtest.Start(t)
			cli := newClient(t, cluster, "", "")
			key := prefix + "/Hello/127.0.0.1:1001"
			events := cli.Watch(t.Context(), key, clientv3.WithRev(1))

			for _, s := range order {
				r, err := s.registry(cluster.Endpoints(), prefix)
				if err != nil {
					t.Fatal(err)
				}
				if err := r.Register(info(1001, 10, nil)); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := cli.Delete(t.Context(), key); err != nil {
				t.Fatal(err)
			}

			// Two registrations, the deletion, and after it each side may put once. The observe delay of both is 1 s:
			// in 5 s a fight would show.
			writes := 0
			quiet := time.NewTimer(5 * time.Second)
			for waiting := true; waiting; {
				select {
				case resp := <-events:
					writes += len(resp.Events)
				case <-quiet.C:
					waiting = false
				}
			}
			if writes > 5 {
				t.Errorf("the record was written %d times: the two fight over it", writes)
			}
			resp, err := cli.Get(t.Context(), key)
			if err != nil || resp.Count != 1 {
				t.Errorf("the record is lost: %v, %v", resp, err)
			}
		})
	}
}

// TestRecordsAtTheRoot: registry-etcd's WithAuth constructors forgot the prefix, so that their records stand at the root.
// The empty prefix reads and writes there; ours keep the prefix.
func TestRecordsAtTheRoot(t *testing.T) {
	cluster := etcdtest.Start(t)
	enableAuth(t, cluster, "username", "password")
	cli := newClient(t, cluster, "username", "password")
	endpoints := cluster.Endpoints()

	stray, err := old.NewEtcdRegistryWithAuth(endpoints, "username", "password")
	if err != nil {
		t.Fatal(err)
	}
	if err := stray.Register(info(1001, 10, nil)); err != nil {
		t.Fatal(err)
	}
	waitForRecord(t, cli, "/Hello/127.0.0.1:1001")
	root, err := etcd.NewEtcdResolver(endpoints, etcd.WithAuthOpt("username", "password"), etcd.WithEtcdServicePrefix(""))
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, root, "tcp://127.0.0.1:1001 weight 10 zone ")

	ours, err := etcd.NewEtcdRegistryWithAuth(endpoints, "username", "password")
	if err != nil {
		t.Fatal(err)
	}
	if err := ours.Register(info(1002, 10, nil)); err != nil {
		t.Fatal(err)
	}
	waitForRecord(t, cli, prefix+"/Hello/127.0.0.1:1002")
	withAuth, err := etcd.NewEtcdResolverWithAuth(endpoints, "username", "password")
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, withAuth, "tcp://127.0.0.1:1002 weight 10 zone ")
}
