package etcd

import (
	"fmt"
	"reflect"

	"github.com/cloudwego/kitex/client"
	"github.com/cloudwego/kitex/client/streamclient"
	"github.com/cloudwego/kitex/server"

	"github.com/kitex-contrib/kitex-etcd/runtime/internal/record"
)

// SupportsGenerated1 is for generated code only. Generated code refers to it, so that it does not compile with a runtime that is too
// old. A release that changes what generated code needs adds the next number, and keeps this one.
const SupportsGenerated1 = true

// NewServer is for generated code only: New…ServerWithEtcd calls it. It makes a Kitex server with newServer, Kitex's generated
// constructor. The server registers as service through conn. opts come last and override ours. If conn, service or handler cannot
// be used, or Kitex refuses an option, it returns an error; it does not panic.
func NewServer[H any](conn *Conn, service string, newServer func(H, ...server.Option) server.Server, handler H, opts []server.Option) (svr server.Server, err error) {
	if err := checkGenerated(conn, service); err != nil {
		return nil, err
	}
	if err := checkHandler(service, handler); err != nil {
		return nil, err
	}
	defer recoverKitex(service, "server", &err)
	return newServer(handler, append(conn.ServerOptions(service), opts...)...), nil
}

// NewClient is for generated code only: New…ClientWithEtcd calls it. It makes a Kitex client with newClient, Kitex's generated
// constructor. The client finds service through conn. opts come last and override ours. It returns an error where Kitex panics.
func NewClient[C any](conn *Conn, service string, newClient func(string, ...client.Option) (C, error), opts []client.Option) (cli C, err error) {
	if err := checkGenerated(conn, service); err != nil {
		return cli, err
	}
	defer recoverKitex(service, "client", &err)
	return newClient(service, conn.ClientOptions(opts...)...)
}

// NewStreamClient is for generated code only: New…StreamClientWithEtcd calls it. It is [NewClient] for Kitex's streaming constructor.
func NewStreamClient[C any](conn *Conn, service string, newClient func(string, ...streamclient.Option) (C, error), opts []streamclient.Option) (cli C, err error) {
	if err := checkGenerated(conn, service); err != nil {
		return cli, err
	}
	defer recoverKitex(service, "stream client", &err)
	unary := conn.ClientOptions(streamclient.GetClientOptions(opts)...)
	stream := make([]streamclient.Option, len(unary))
	for i, opt := range unary {
		//lint:ignore SA1019 deprecated for users: those options that it cannot convert are theirs, and ours are tested with streams
		stream[i] = streamclient.ConvertOptionFrom(opt)
	}
	return newClient(service, stream...)
}

func checkGenerated(conn *Conn, service string) error {
	if conn == nil {
		return errNilConn
	}
	if conn.link.Closing().Err() != nil {
		return ErrClosed
	}
	return record.CheckService(service)
}

// checkHandler refuses the handlers that Kitex panics on.
func checkHandler(service string, handler any) error {
	v := reflect.ValueOf(handler)
	switch v.Kind() {
	case reflect.Invalid:
		return fmt.Errorf("etcd: the handler of %s is nil; give a pointer to its implementation", service)
	case reflect.Pointer, reflect.Map, reflect.Slice, reflect.Func, reflect.Chan, reflect.UnsafePointer:
		if v.IsNil() {
			return fmt.Errorf("etcd: the handler of %s is a nil %T; give one that points to something", service, handler)
		}
		return nil
	default:
		return fmt.Errorf("etcd: the handler of %s is a %T, which Kitex cannot use; give a pointer to it (&%T{…})", service, handler, handler)
	}
}

// recoverKitex turns a panic of Kitex, its way to refuse an option, into an error.
func recoverKitex(service, what string, err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("etcd: Kitex refused to make the %s of %s; check its options: %v", what, service, p)
	}
}
