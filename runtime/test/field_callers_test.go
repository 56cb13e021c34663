package test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/cloudwego/kitex/client"
	"github.com/cloudwego/kitex/client/streamclient"

	"github.com/kitex-contrib/kitex-etcd/golden/protobuf_streaming/kitex_gen/pb/chat"
	chatservice "github.com/kitex-contrib/kitex-etcd/golden/protobuf_streaming/kitex_gen/pb/chat/chat"
	"github.com/kitex-contrib/kitex-etcd/golden/thrift_unary/kitex_gen/api"
	"github.com/kitex-contrib/kitex-etcd/golden/thrift_unary/kitex_gen/api/hello"
	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
	"github.com/kitex-contrib/kitex-etcd/runtime/etcdtest"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/discovery"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/faultproxy"
)

// refusing is the address of an etcd that is down.
func refusing(t *testing.T) string {
	t.Helper()
	proxy := faultproxy.Start(t, "127.0.0.1:1")
	proxy.Shut()
	return proxy.Addr()
}

// TestFieldCallersDeadline: a caller that has less time than the first answer of etcd is given hears of the cause within its time.
func TestFieldCallersDeadline(t *testing.T) {
	c := connectTo(t, []string{refusing(t)})
	cli := newHello(t, c, client.WithRPCTimeout(500*time.Millisecond))
	begin := time.Now()
	_, err := cli.Echo(testContext(t), &api.Request{})
	took := time.Since(begin)
	if err == nil || !strings.Contains(err.Error(), "connection refused") || !strings.Contains(err.Error(), "Hello") {
		t.Errorf("the call's error does not name the cause: %v", err)
	}
	if took > 2*time.Second {
		t.Errorf("the call took %v of its 500 ms", took)
	}

	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	begin = time.Now()
	if _, err := c.Instances(ctx, "Other"); err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("Instances: %v", err)
	}
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("Instances took %v of its 300 ms", took)
	}
}

// TestFieldStreamsEndWithTheirContext: neither the deadline of a stream nor its end is put off while etcd is down, and callers that
// wait for the same service do not share them.
func TestFieldStreamsEndWithTheirContext(t *testing.T) {
	c := connectTo(t, []string{refusing(t)})
	//lint:ignore SA1019 there is no other way to a stream client's CloseCallbacks
	cli, err := chatservice.NewChatStreamClientWithEtcd(c, streamclient.ConvertOptionFrom(closedAfter(t)))
	if err != nil {
		t.Fatal(err)
	}
	patient := make(chan error, 1)
	go func() {
		_, err := cli.Download(testContext(t), &chat.Request{})
		patient <- err
	}()
	for name, ctx := range map[string]func() (context.Context, context.CancelFunc){
		"a deadline": func() (context.Context, context.CancelFunc) {
			return context.WithTimeout(t.Context(), 300*time.Millisecond)
		},
		"cancelled": func() (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(100*time.Millisecond, cancel)
			return ctx, cancel
		},
	} {
		ctx, cancel := ctx()
		begin := time.Now()
		_, err := cli.Download(ctx, &chat.Request{})
		if took := time.Since(begin); err == nil || took > 2*time.Second {
			t.Errorf("%s: %v after %v", name, err, took)
		}
		cancel()
	}
	if err := <-patient; err == nil || errors.Is(err, context.Canceled) {
		t.Errorf("a caller with more time: %v", err)
	}
}

// TestFieldEtcdLostAndFound: a process of clients alone says once that etcd is lost, and once that it is found.
func TestFieldEtcdLostAndFound(t *testing.T) {
	cluster := etcdtest.Start(t)
	for name, fault := range map[string]func(*faultproxy.Proxy){"refused": (*faultproxy.Proxy).Refuse, "black hole": (*faultproxy.Proxy).BlackHole} {
		t.Run(name, func(t *testing.T) {
			proxy := faultproxy.Start(t, cluster.Endpoints()[0])
			events := newJournal()
			c := connectTo(t, []string{proxy.Addr()}, hurry(), etcd.WithEventHandler(events.add))
			for i := range 5 {
				await(t, c, fieldService(i))
			}
			fault(proxy)
			events.wait(t, etcd.EventEtcdLost, 1)
			proxy.Forward()
			events.wait(t, etcd.EventEtcdFound, 1)
			if lost := events.count(etcd.EventEtcdLost); lost != 1 {
				t.Errorf("lost %d times", lost)
			}
		})
	}
}

// TestFieldResolverAlone: a client with the resolver alone that starts before its server calls it as soon as it registers, and until
// then its error says what is missing. It notices when the last server leaves.
func TestFieldResolverAlone(t *testing.T) {
	cluster := etcdtest.Start(t)
	r := connect(t, cluster).Resolver() // as NewEtcdResolver, whose Conn nobody can close
	cli, err := hello.NewClient(testService, client.WithResolver(r), client.WithRPCTimeout(3*time.Second), closedAfter(t))
	if err != nil {
		t.Fatal(err)
	}
	_, err = cli.Echo(testContext(t), &api.Request{})
	if err == nil || !strings.Contains(err.Error(), "service Hello has no instances (keys "+etcd.DefaultPrefix+"/Hello/") {
		t.Errorf("the error does not say what is missing: %v", err)
	}
	s := serveHello(t)
	put(t, etcdClient(t, cluster.Endpoints()), testService, s.addr)
	begin := time.Now()
	for {
		_, err := cli.Echo(testContext(t), &api.Request{})
		if err == nil {
			break
		}
		if time.Since(begin) > 30*time.Second {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Millisecond)
	}
	if took := time.Since(begin); took > 3*time.Second {
		t.Errorf("called after %v, as at a refresh of Kitex", took)
	}
	remove(t, etcdClient(t, cluster.Endpoints()), testService, s.addr)
	for begin := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		if _, err := cli.Echo(testContext(t), &api.Request{}); err != nil {
			break
		}
		if time.Since(begin) > 20*time.Second {
			t.Fatal("still called 20 s after it left")
		}
	}
}

// TestFieldNamesThatNobodyServes: names that were asked for once leave nothing, and their number is bounded before that.
func TestFieldNamesThatNobodyServes(t *testing.T) {
	cluster := etcdtest.Start(t)
	cli := etcdClient(t, cluster.Endpoints())
	put(t, cli, "Real", "10.0.0.1:80")
	c := connectTo(t, cluster.Endpoints(), withTiming(func(timing *discovery.Timing) {
		timing.Check, timing.Idle = 200*time.Millisecond, 500*time.Millisecond
	}))
	await(t, c, "Real", "10.0.0.1:80")
	eventually(t, "an unused service has no watch", func() bool { return c.Services()[0].Idle })
	const names = 3000
	ask := func(round string) (most int) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute) // the test keeps each testContext to its end
		defer cancel()
		for i := range names {
			if list, err := c.Instances(ctx, fmt.Sprintf("nobody%s%d", round, i)); err != nil || len(list) != 0 {
				t.Fatalf("%v, %v", list, err)
			}
			most = max(most, len(c.Services()))
		}
		eventually(t, "what nobody uses is forgotten", func() bool { return len(c.Services()) == 1 })
		return most
	}
	ask("") // whatever grows once, in etcd's memory too, has grown
	goroutines, heap := runtime.NumGoroutine(), heapInUse()
	most := ask("again")
	if most > 1100 {
		t.Errorf("%d names were followed at once", most)
	}
	eventually(t, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= goroutines+2 })
	grown := func() float64 { return float64(int64(heapInUse())-int64(heap)) / 1e6 }
	eventually(t, "0.3 MB are left at most", func() bool { return grown() <= 0.3 }) // etcd is in this process too, and lets go later
	t.Logf("%d names: at most %d followed at once; afterwards %d goroutines, %.2f MB more", names, most, runtime.NumGoroutine()-goroutines, grown())
	await(t, c, "Real", "10.0.0.1:80")
	put(t, cli, "nobody7", "10.0.0.7:80")
	await(t, c, "nobody7", "10.0.0.7:80")
}
