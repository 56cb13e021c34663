package etcd_test

import (
	"context"
	"fmt"
	"log"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/cloudwego/kitex/client"
	"github.com/cloudwego/kitex/pkg/registry"
	"github.com/cloudwego/kitex/server"
	clientv3 "go.etcd.io/etcd/client/v3"

	hellos "github.com/kitex-contrib/kitex-etcd/golden/thrift_unary/kitex_gen/api"
	"github.com/kitex-contrib/kitex-etcd/golden/thrift_unary/kitex_gen/api/hello"
	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
	"github.com/kitex-contrib/kitex-etcd/runtime/etcdtest"
	"github.com/kitex-contrib/kitex-etcd/runtime/retry"
)

// Credentials from a file, which may change while the process runs.
func ExampleWithAuthFunc() {
	cluster := must(etcdtest.New())
	defer cluster.Close()
	addRoot(cluster, "secret")
	file := tempFile("secret\n")
	defer os.Remove(file)

	conn := must(etcd.Connect(cluster.Endpoints(), etcd.WithAuthFunc(func(context.Context) (username, password string, err error) {
		data, err := os.ReadFile(file)
		return "root", strings.TrimSpace(string(data)), err
	})))
	defer conn.Close()
	instances, err := conn.Instances(context.Background(), "Hello")
	fmt.Println(len(instances), err)
	// Output: 0 <nil>
}

// The options for the connection to etcd.
func ExampleWithClient() {
	cluster := must(etcdtest.New())
	defer cluster.Close()
	// A client of your own has its own endpoints, TLS and credentials. Close of the Conn does not close it.
	cli := must(clientv3.New(clientv3.Config{Endpoints: cluster.Endpoints(), DialTimeout: time.Second}))
	defer cli.Close()
	conn := must(etcd.Connect(nil, etcd.WithClient(cli)))
	fmt.Println(conn.Close())

	// Without one, these options say how to reach etcd.
	conn = must(etcd.Connect(cluster.Endpoints(),
		etcd.WithDialTimeoutOpt(5*time.Second),
		etcd.WithEndpointSync(time.Minute),
	))
	fmt.Println(conn.Close())
	// Output:
	// <nil>
	// <nil>
}

// The options for servers.
func ExampleWithLeaseTTL() {
	conn, err := etcd.Connect([]string{"127.0.0.1:2379"},
		etcd.WithLeaseTTL(30*time.Second),   // a record stays for 30 s after its process died
		etcd.WithDrainDelay(time.Second),    // a server that stops serves for another second
		etcd.WithAdvertiseAddr("192.0.2.7"), // the host to publish; the port is the listener's
		etcd.WithBackgroundRegister(),       // start while etcd is down
		etcd.WithRetry(retry.NewRetryConfig( // how a lost record is repaired
			retry.WithRetryDelay(2*time.Second),
			retry.WithObserveDelay(10*time.Second))),
	)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(conn.Close())
	// Output: <nil>
}

// A host with several addresses publishes the one in this subnet.
func ExampleWithAdvertiseSubnet() {
	conn, err := etcd.Connect([]string{"127.0.0.1:2379"}, etcd.WithAdvertiseSubnet(netip.MustParsePrefix("10.0.0.0/8")))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(conn.Close())
	// Output: <nil>
}

// The options for clients.
func ExampleWithEmptyProtection() {
	conn, err := etcd.Connect([]string{"127.0.0.1:2379"},
		etcd.WithDefaultWeight(5),             // of instances whose server gave none
		etcd.WithEmptyProtection(time.Minute), // how long the last instances are used when all leases ended
		etcd.WithEjection(false),              // call also instances that do not answer
	)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(conn.Close())
	// Output: <nil>
}

// A process that starts while etcd is down uses the list that an earlier process stored.
func ExampleWithSnapshots() {
	dir := must(os.MkdirTemp("", "etcd-example-"))
	defer os.RemoveAll(dir)
	cluster := must(etcdtest.New())
	defer cluster.Close()
	putRecord(cluster, "Hello", "192.0.2.7:8888")

	first := must(etcd.Connect(cluster.Endpoints(), etcd.WithSnapshots(dir)))
	must(hello.NewHelloClientWithEtcd(first)) // lists of services that have a client are stored
	awaitFile(filepath.Join(dir, "*", "Hello-*.json"))
	first.Close()

	cluster.Close() // etcd is down
	second := must(etcd.Connect(cluster.Endpoints(), etcd.WithSnapshots(dir), etcd.WithEventHandler(func(ev etcd.Event) {
		if ev.Type == etcd.EventSnapshotUsed {
			fmt.Println(ev.Type, ev.Service)
		}
	})))
	instances, err := second.Instances(context.Background(), "Hello")
	if err != nil {
		log.Fatal(err)
	}
	second.Close() // the handler has seen every event when Close returns
	fmt.Println(instances[0].Address())
	// Output:
	// snapshot used Hello
	// 192.0.2.7:8888
}

// An instance that refuses connections gets no calls after a few attempts.
func ExampleWithEjection() {
	cluster := must(etcdtest.New())
	defer cluster.Close()
	ejected := make(chan etcd.Event, 10)
	conn := must(etcd.Connect(cluster.Endpoints(), etcd.WithEventHandler(func(ev etcd.Event) {
		if ev.Type == etcd.EventEjected {
			ejected <- ev
		}
	})))
	defer conn.Close()
	defer serve(conn, "")()
	dead := must(net.Listen("tcp", "127.0.0.1:0")) // an address where nobody listens, for a record that is still there
	dead.Close()
	putRecord(cluster, "Hello", dead.Addr().String())
	await(conn, 2)

	cli := must(hello.NewHelloClientWithEtcd(conn,
		client.WithRPCTimeout(time.Second))) // without it, nobody notices an instance that hangs
	for {
		must(cli.Echo(context.Background(), &hellos.Request{Message: "hello"})) // no call fails: Kitex tries another instance
		select {
		case ev := <-ejected:
			fmt.Println(ev.Type, ev.Address == dead.Addr().String())
			return
		default:
		}
	}
	// Output: ejected true
}

// Calls go to the zone of the caller, as long as enough of its instances are usable.
func ExamplePrefer() {
	cluster := must(etcdtest.New())
	defer cluster.Close()
	conn := must(etcd.Connect(cluster.Endpoints()))
	defer conn.Close()
	defer serve(conn, "far", server.WithRegistryInfo(&registry.Info{Tags: map[string]string{"zone": "a"}}))()
	defer serve(conn, "near", server.WithRegistryInfo(&registry.Info{Tags: map[string]string{"zone": "b"}}))()
	await(conn, 2)

	cli := must(hello.NewHelloClientWithEtcd(conn, etcd.Prefer("zone", "b", 1)))
	for range 3 {
		fmt.Println(must(cli.Echo(context.Background(), &hellos.Request{Message: "hello"})).Message)
	}
	// Output:
	// hello from near
	// hello from near
	// hello from near
}

// Calls of a lane go to its instances; other calls go to the instances without a lane.
func ExampleLane() {
	cluster := must(etcdtest.New())
	defer cluster.Close()
	conn := must(etcd.Connect(cluster.Endpoints()))
	defer conn.Close()
	defer serve(conn, "base")()
	defer serve(conn, "blue", server.WithRegistryInfo(&registry.Info{Tags: map[string]string{"lane": "blue"}}))()
	await(conn, 2)

	type laneKey struct{} // in production, Kitex's metainfo passes the lane from service to service
	cli := must(hello.NewHelloClientWithEtcd(conn, etcd.Lane("lane", func(ctx context.Context) string {
		lane, _ := ctx.Value(laneKey{}).(string)
		return lane
	})))
	for _, lane := range []string{"", "blue", "green"} {
		ctx := context.WithValue(context.Background(), laneKey{}, lane)
		fmt.Printf("%q: %s\n", lane, must(cli.Echo(ctx, &hellos.Request{Message: "hello"})).Message)
	}
	// Output:
	// "": hello from base
	// "blue": hello from blue
	// "green": hello from base
}

// A server changes its weight and tags while it runs.
func ExampleConn_Update() {
	cluster := must(etcdtest.New())
	defer cluster.Close()
	conn := must(etcd.Connect(cluster.Endpoints()))
	defer conn.Close()
	defer serve(conn, "")()

	ctx := context.Background()
	if err := conn.Update(ctx, "Hello", etcd.Change{Weight: 1, Tags: map[string]string{"state": "warming up"}}); err != nil {
		log.Fatal(err)
	}
	records, _, err := conn.Records(ctx, "Hello")
	fmt.Println(records[0].Weight, records[0].Tags, err)
	// Output: 1 map[state:warming up] <nil>
}

// A tool takes a server out of service; the server follows, and serves on.
func ExampleConn_SetMark() {
	cluster := must(etcdtest.New())
	defer cluster.Close()
	drained := make(chan etcd.Event, 1)
	conn := must(etcd.Connect(cluster.Endpoints(), etcd.WithEventHandler(func(ev etcd.Event) {
		if ev.Type == etcd.EventDrained {
			drained <- ev
		}
	})))
	defer conn.Close()
	defer serve(conn, "")()

	addr := conn.Registered()[0].Address
	if _, _, err := conn.SetMark(context.Background(), "Hello", addr, etcd.Mark{Drain: true, Reason: "heap dump"}, 10*time.Minute); err != nil {
		log.Fatal(err)
	}
	ev := <-drained
	fmt.Println(ev.Service, conn.Registered()[0].State, ev.Err)
	// Output: Hello drained heap dump
}

// The state of each record of this process, for a readiness probe.
func ExampleConn_Registered() {
	cluster := must(etcdtest.New())
	defer cluster.Close()
	registered := make(chan etcd.Event, 1)
	conn := must(etcd.Connect(cluster.Endpoints(), etcd.WithEventHandler(func(ev etcd.Event) {
		if ev.Type == etcd.EventRegistered {
			registered <- ev
		}
	})))
	defer conn.Close()
	defer serve(conn, "")()

	<-registered
	for _, r := range conn.Registered() {
		fmt.Println(r.Service, r.State, r.TTL)
	}
	// Output: Hello standing 10s
}

// Each new list of instances, without a Kitex client.
func ExampleConn_Watch() {
	cluster := must(etcdtest.New())
	defer cluster.Close()
	conn := must(etcd.Connect(cluster.Endpoints()))
	defer conn.Close()

	for instances, err := range conn.Watch(context.Background(), "Hello") {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(len(instances))
		if len(instances) == 1 {
			break
		}
		putRecord(cluster, "Hello", "192.0.2.7:8888")
	}
	// Output:
	// 0
	// 1
}

type namedHandler struct{ name string }

func (h namedHandler) Echo(_ context.Context, req *hellos.Request) (*hellos.Response, error) {
	if h.name == "" {
		return &hellos.Response{Message: req.Message}, nil
	}
	return &hellos.Response{Message: req.Message + " from " + h.name}, nil
}

// serve runs a server of Hello that answers with its name, returns when it is registered, and stops it with what it returns.
func serve(conn *etcd.Conn, name string, opts ...server.Option) (stop func()) {
	registered := len(conn.Registered())
	svr := must(hello.NewHelloServerWithEtcd(&namedHandler{name}, conn, append(append(exampleServer(), server.WithExitWaitTime(time.Millisecond)), opts...)...))
	ran := make(chan error, 1)
	go func() { ran <- svr.Run() }()
	await(conn, registered+1)
	return func() {
		svr.Stop() // its error is that clients of this process have connections to it
		<-ran
	}
}

// await waits until Hello has n instances.
func await(conn *etcd.Conn, n int) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for instances, err := range conn.Watch(ctx, "Hello") {
		if err != nil {
			log.Fatal(err)
		}
		if len(instances) == n {
			return
		}
	}
}

// putRecord writes a record that no server of this process keeps.
func putRecord(cluster *etcdtest.Cluster, service, addr string) {
	cli := must(clientv3.New(clientv3.Config{Endpoints: cluster.Endpoints()}))
	defer cli.Close()
	must(cli.Put(context.Background(), etcd.DefaultPrefix+"/"+service+"/"+addr, fmt.Sprintf(`{"address":%q}`, addr)))
}

// awaitFile waits for a file.
func awaitFile(pattern string) {
	for deadline := time.Now().Add(20 * time.Second); len(must(filepath.Glob(pattern))) == 0; {
		if time.Now().After(deadline) {
			log.Fatalf("no file %s", pattern)
		}
		time.Sleep(10 * time.Millisecond) // the file is written by the Conn, which has no event for it
	}
}

// tempFile is a file with this text.
func tempFile(text string) string {
	f := must(os.CreateTemp("", "etcd-example-"))
	defer f.Close()
	must(f.WriteString(text))
	return f.Name()
}
