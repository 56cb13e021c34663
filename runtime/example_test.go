package etcd_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/cloudwego/kitex/client"
	"github.com/cloudwego/kitex/pkg/connpool"
	"github.com/cloudwego/kitex/pkg/klog"
	"github.com/cloudwego/kitex/pkg/remote/trans/gonet"
	"github.com/cloudwego/kitex/server"
	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"github.com/kitex-contrib/kitex-etcd/golden/thrift_services/kitex_gen/api"
	"github.com/kitex-contrib/kitex-etcd/golden/thrift_services/kitex_gen/api/orders"
	"github.com/kitex-contrib/kitex-etcd/golden/thrift_services/kitex_gen/api/stock"
	hellos "github.com/kitex-contrib/kitex-etcd/golden/thrift_unary/kitex_gen/api"
	"github.com/kitex-contrib/kitex-etcd/golden/thrift_unary/kitex_gen/api/hello"
	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
	"github.com/kitex-contrib/kitex-etcd/runtime/etcdtest"
)

func init() { klog.SetLevel(klog.LevelFatal) }

func Example() {
	cluster := must(etcdtest.New()) // in production: your etcd
	defer cluster.Close()
	conn, err := etcd.Connect(cluster.Endpoints())
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()

	svr, err := hello.NewHelloServerWithEtcd(new(helloHandler), conn, exampleServer()...)
	if err != nil {
		log.Fatal(err)
	}
	defer runExample(svr, conn)() // in production: svr.Run()

	cli, err := hello.NewHelloClientWithEtcd(conn, longPool())
	if err != nil {
		log.Fatal(err)
	}
	resp, err := cli.Echo(context.Background(), &hellos.Request{Message: "hello"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(resp.Message)
	// Output: hello
}

func ExampleConnect() {
	// No etcd has to run: Connect checks the settings, and the network is used later.
	conn, err := etcd.Connect([]string{"127.0.0.1:2379"}, etcd.WithEtcdServicePrefix("shop/services"))
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	fmt.Println(conn)

	_, err = etcd.Connect([]string{"127.0.0.1"})
	fmt.Println(err)
	// Output:
	// etcd.Conn(127.0.0.1:2379, prefix "shop/services")
	// etcd: endpoint "127.0.0.1": address 127.0.0.1: missing port in address; write host:port
}

// One Kitex server of two services, registered under both names.
func ExampleConn_ServerOptions() {
	cluster := must(etcdtest.New())
	defer cluster.Close()
	conn := must(etcd.Connect(cluster.Endpoints()))
	defer conn.Close()

	opts := conn.ServerOptions(orders.OrdersServiceName, stock.StockServiceName)
	svr := server.NewServer(append(opts, exampleServer()...)...)
	if err := errors.Join(
		orders.RegisterService(svr, new(shopHandler)),
		stock.RegisterService(svr, new(shopHandler)),
	); err != nil {
		log.Fatal(err)
	}
	defer runExample(svr, conn)()

	cli := must(stock.NewStockClientWithEtcd(conn, longPool()))
	resp := must(cli.Count(context.Background(), &api.Request{Message: "apples"}))
	fmt.Println(resp.Message)
	// Output: 3 apples
}

func ExampleWithAuthOpt() {
	cluster := must(etcdtest.New())
	defer cluster.Close()
	addRoot(cluster, "secret")

	conn := must(etcd.Connect(cluster.Endpoints(), etcd.WithAuthOpt("root", "secret")))
	defer conn.Close()
	instances, err := conn.Instances(context.Background(), "Hello")
	fmt.Println(len(instances), err)
	// Output: 0 <nil>
}

func ExampleWithTLSOpt() {
	cluster, caFile, stop := tlsCluster() // shows a certificate that caFile vouches for
	defer stop()

	conn := must(etcd.Connect(cluster.Endpoints(), etcd.WithTLSOpt("", "", caFile)))
	defer conn.Close()
	instances, err := conn.Instances(context.Background(), "Hello")
	fmt.Println(len(instances), err)

	_, err = etcd.Connect(cluster.Endpoints(), etcd.WithTLSOpt("", "", "no-such-file.pem"))
	fmt.Println("refused at once:", errors.Is(err, os.ErrNotExist))
	// Output:
	// 0 <nil>
	// refused at once: true
}

func ExampleWithEventHandler() {
	cluster := must(etcdtest.New())
	defer cluster.Close()
	conn := must(etcd.Connect(cluster.Endpoints(), etcd.WithEventHandler(func(ev etcd.Event) {
		fmt.Println(ev.Type, ev.Service, ev.Err)
	})))
	svr := must(hello.NewHelloServerWithEtcd(new(helloHandler), conn, exampleServer()...))
	runExample(svr, conn)() // runs it, and stops it when it is registered
	conn.Close()            // the handler has seen every event when Close returns
	// Output:
	// registered Hello <nil>
	// deregistered Hello <nil>
}

type helloHandler struct{}

func (*helloHandler) Echo(_ context.Context, req *hellos.Request) (*hellos.Response, error) {
	return &hellos.Response{Message: req.Message}, nil
}

type shopHandler struct{}

func (*shopHandler) Place(_ context.Context, req *api.Request) (*api.Response, error) {
	return &api.Response{Message: "ordered " + req.Message}, nil
}

func (*shopHandler) Count(_ context.Context, req *api.Request) (*api.Response, error) {
	return &api.Response{Message: "3 " + req.Message}, nil
}

func must[T any](v T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return v
}

// exampleServer are the options of a server on a free port that shares its process with an etcd.
func exampleServer() []server.Option {
	return []server.Option{
		server.WithListener(must(net.Listen("tcp", "127.0.0.1:0"))),
		server.WithTransServerFactory(gonet.NewTransServerFactory()),
		server.WithTransHandlerFactory(gonet.NewSvrTransHandlerFactory()),
		server.WithExitSignal(func() <-chan error { return nil }),
	}
}

func longPool() client.Option {
	return client.WithLongConnection(connpool.IdleConfig{MaxIdlePerAddress: 100, MaxIdleGlobal: 1000, MaxIdleTimeout: time.Minute})
}

// runExample runs svr, returns when the prefix of conn has its records, and stops svr with what it returns.
func runExample(svr server.Server, conn *etcd.Conn) (stop func()) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	changes := conn.Client().Watch(ctx, etcd.DefaultPrefix, clientv3.WithPrefix(), clientv3.WithRev(1))
	ran := make(chan error, 1)
	go func() { ran <- svr.Run() }()
	if change, ok := <-changes; !ok || change.Err() != nil {
		log.Fatalf("not registered: %v", change.Err())
	}
	return func() {
		if err := errors.Join(svr.Stop(), <-ran); err != nil {
			log.Fatal(err)
		}
	}
}

// addRoot makes cluster ask for credentials, those of the user root.
func addRoot(cluster *etcdtest.Cluster, password string) {
	cli := must(clientv3.New(clientv3.Config{Endpoints: cluster.Endpoints()}))
	defer cli.Close()
	ctx := context.Background()
	must(cli.UserAdd(ctx, "root", password))
	must(cli.UserGrantRole(ctx, "root", "root"))
	must(cli.AuthEnable(ctx))
}

// tlsCluster is an etcd that asks for TLS, the file of the certificate that it shows, and what removes both.
func tlsCluster() (cluster *etcdtest.Cluster, caFile string, stop func()) {
	dir := must(os.MkdirTemp("", "etcd-example-"))
	info := must(transport.SelfCert(zap.NewNop(), dir, []string{"127.0.0.1:0"}, 1))
	cluster = must(etcdtest.New(etcdtest.WithDir(dir), etcdtest.WithConfig(func(c *embed.Config) {
		c.ClientTLSInfo = info
	})))
	return cluster, filepath.Join(dir, "cert.pem"), func() {
		cluster.Close()
		os.RemoveAll(dir)
	}
}
