package etcd_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"

	"github.com/cloudwego/kitex/client"
	"github.com/cloudwego/kitex/pkg/registry"
	"github.com/cloudwego/kitex/pkg/utils"

	"github.com/kitex-contrib/kitex-etcd/golden/thrift_unary/kitex_gen/api/hello"
	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
	"github.com/kitex-contrib/kitex-etcd/runtime/etcdtest"
	"github.com/kitex-contrib/kitex-etcd/runtime/retry"
)

// Clients stop calling an instance that does not answer. They tell of it by an event.
func ExampleWithEjection() {
	conn, err := etcd.Connect([]string{"127.0.0.1:2379"}, etcd.WithEventHandler(func(ev etcd.Event) {
		if ev.Type == etcd.EventEjected {
			log.Printf("%s: %s does not answer: %v", ev.Service, ev.Address, ev.Err)
		}
	}))
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	// The RPC timeout is what tells that a server hangs.
	cli, err := hello.NewHelloClientWithEtcd(conn, client.WithRPCTimeout(time.Second))
	fmt.Println(cli != nil, err)
	// Output: true <nil>
}

// A client that starts while etcd is away calls the instances that an earlier process stored.
func ExampleWithSnapshots() {
	dir := must(os.MkdirTemp("", "instances"))
	defer os.RemoveAll(dir)
	cluster := must(etcdtest.New())
	defer cluster.Close()
	servers := must(etcd.Connect(cluster.Endpoints()))
	defer servers.Close()
	register(servers, "10.0.0.1:8888", nil)

	earlier := must(etcd.Connect(cluster.Endpoints(), etcd.WithSnapshots(dir)))
	must(earlier.Instances(context.Background(), "Hello"))
	awaitFile(dir) // a list is stored as soon as it is known
	earlier.Close()
	cluster.Stop() // etcd is away

	conn := must(etcd.Connect(cluster.Endpoints(), etcd.WithSnapshots(dir)))
	defer conn.Close()
	for _, instance := range must(conn.Instances(context.Background(), "Hello")) {
		fmt.Println(instance.Address())
	}
	// Output: 10.0.0.1:8888
}

// Calls go to the servers of the own zone while two of them are usable, else to all.
func ExamplePrefer() {
	conn := must(etcd.Connect([]string{"127.0.0.1:2379"}))
	defer conn.Close()
	_, err := hello.NewHelloClientWithEtcd(conn, etcd.Prefer("zone", "eu-1a", 2))
	fmt.Println(err)

	_, err = hello.NewHelloClientWithEtcd(conn, etcd.Prefer("zone", "", 2)) // a variable that is not set
	fmt.Println(err != nil)
	// Output:
	// <nil>
	// true
}

type laneKey struct{}

// A call goes to the servers of its lane. Where the lane has none it goes to those without the tag.
func ExampleLane() {
	conn := must(etcd.Connect([]string{"127.0.0.1:2379"}))
	defer conn.Close()
	_, err := hello.NewHelloClientWithEtcd(conn, etcd.Lane("lane", func(ctx context.Context) string {
		lane, _ := ctx.Value(laneKey{}).(string)
		return lane
	}))
	fmt.Println(err)
	// Output: <nil>
}

// The credentials are asked for at each authentication, so a password may change while the process runs.
func ExampleWithAuthFunc() {
	cluster := must(etcdtest.New())
	defer cluster.Close()
	addRoot(cluster, "secret")
	conn := must(etcd.Connect(cluster.Endpoints(), etcd.WithAuthFunc(func(context.Context) (username, password string, err error) {
		return "root", "secret", nil // in production: read a file
	})))
	defer conn.Close()
	_, err := conn.Instances(context.Background(), "Hello")
	fmt.Println(err)
	// Output: <nil>
}

// How what is lost is repaired, for the one that wants it otherwise.
func ExampleWithRetry() {
	conn, err := etcd.Connect([]string{"127.0.0.1:2379"}, etcd.WithRetry(retry.NewRetryConfig(
		retry.WithMaxAttemptTimes(0), // no bound
		retry.WithRetryDelay(5*time.Second),
	)))
	fmt.Println(conn, err)
	conn.Close()
	// Output: etcd.Conn(127.0.0.1:2379, prefix "kitex/registry-etcd") <nil>
}

// The address to publish where the server cannot know it, behind a mapped port for example.
func ExampleWithAdvertiseAddr() {
	cluster := must(etcdtest.New())
	defer cluster.Close()
	conn := must(etcd.Connect(cluster.Endpoints(), etcd.WithAdvertiseAddr("203.0.113.7:30000")))
	defer conn.Close()
	register(conn, "127.0.0.1:8888", nil)
	fmt.Println(conn.Registered()[0].Address, conn.Registered()[0].State)
	// Output: 203.0.113.7:30000 standing
}

// A running server changes its weight: clients never see it absent.
func ExampleConn_Update() {
	cluster := must(etcdtest.New())
	defer cluster.Close()
	conn := must(etcd.Connect(cluster.Endpoints()))
	defer conn.Close()
	register(conn, "10.0.0.1:8888", map[string]string{"zone": "a"})

	if err := conn.Update(context.Background(), "Hello", etcd.Change{Weight: 5}); err != nil {
		log.Fatal(err)
	}
	records, _, err := conn.Records(context.Background(), "Hello")
	fmt.Println(records[0].Weight, records[0].Tags["zone"], err)

	err = conn.Update(context.Background(), "Hello", etcd.Change{})
	fmt.Println(err)
	// Output:
	// 5 a <nil>
	// etcd: update Hello: the Change is empty
}

// The list of a service, now and after each change.
func ExampleConn_Watch() {
	cluster := must(etcdtest.New())
	defer cluster.Close()
	conn := must(etcd.Connect(cluster.Endpoints(), etcd.WithDrainDelay(0)))
	defer conn.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for instances, err := range conn.Watch(ctx, "Hello") {
		if errors.Is(err, context.Canceled) {
			break
		}
		fmt.Println(len(instances), err)
		if len(instances) == 0 {
			register(conn, "10.0.0.1:8888", nil)
		} else {
			cancel() // seen enough
		}
	}
	// Output:
	// 0 <nil>
	// 1 <nil>
}

// awaitFile waits until there is a list in dir.
func awaitFile(dir string) {
	for {
		if files := must(filepath.Glob(filepath.Join(dir, "*", "*.json"))); len(files) > 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// register registers a server without running one.
func register(conn *etcd.Conn, addr string, tags map[string]string) {
	info := &registry.Info{ServiceName: "Hello", Addr: utils.NewNetAddr("tcp", addr), Weight: 10, Tags: tags}
	if err := conn.Registry().Register(info); err != nil {
		log.Fatal(err)
	}
}
