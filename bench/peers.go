package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	kratosetcd "github.com/go-kratos/kratos/contrib/registry/etcd/v2"
	kratosregistry "github.com/go-kratos/kratos/v2/registry"
	old "github.com/kitex-contrib/registry-etcd"
	"github.com/zeromicro/go-zero/core/discov"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/naming/endpoints"
	"go.uber.org/zap"

	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
)

// A peer is a library that finds instances in etcd, used as its documentation has it.
type peer struct {
	name string
	// record is what the library reads as one instance of a service.
	record func(service, addr string) pair
	// find returns the call by which a program asks for the instances of a service: their number. Nil means that the
	// library has no such call.
	find func(b *bench, service string) (func() (int, error), error)
	// watch tells saw of each address of a service when a program can have it. Nil means a Kitex client does, see caller.
	watch func(b *bench, service string, saw func(addr string)) error
}

var peers = []peer{
	{name: ours, record: kitexRecord, find: func(b *bench, service string) (func() (int, error), error) {
		conn, err := b.connect()
		if err != nil {
			return nil, err
		}
		r := conn.Resolver()
		return func() (int, error) {
			res, err := r.Resolve(b.ctx, service)
			return len(res.Instances), err
		}, nil
	}},
	{name: before, record: kitexRecord, find: func(b *bench, service string) (func() (int, error), error) {
		r, err := old.NewEtcdResolver(b.etcd.endpoints, quietly)
		if err != nil {
			return nil, err
		}
		return func() (int, error) {
			res, err := r.Resolve(b.ctx, service)
			return len(res.Instances), err
		}, nil
	}},
	{name: gozero,
		record: func(service, addr string) pair { return pair{service + "/" + addr, addr} },
		find: func(b *bench, service string) (func() (int, error), error) {
			s, err := discov.NewSubscriber(b.etcd.endpoints, service)
			if err != nil {
				return nil, err
			}
			b.cleanup(s.Close)
			return func() (int, error) { return len(s.Values()), nil }, nil
		},
		watch: func(b *bench, service string, saw func(addr string)) error {
			s, err := discov.NewSubscriber(b.etcd.endpoints, service)
			if err != nil {
				return err
			}
			b.cleanup(s.Close)
			s.AddListener(func() {
				for _, addr := range s.Values() {
					saw(addr)
				}
			})
			return nil
		}},
	{name: kratos,
		record: func(service, addr string) pair {
			value, err := json.Marshal(kratosregistry.ServiceInstance{ID: addr, Name: service, Endpoints: []string{"grpc://" + addr}})
			if err != nil {
				panic(err) // strings only
			}
			return pair{"/microservices/" + service + "/" + addr, string(value)}
		},
		find: func(b *bench, service string) (func() (int, error), error) {
			client, err := b.client()
			if err != nil {
				return nil, err
			}
			r := kratosetcd.New(client)
			return func() (int, error) {
				found, err := r.GetService(b.ctx, service)
				return len(found), err
			}, nil
		},
		watch: func(b *bench, service string, saw func(addr string)) error {
			client, err := b.client()
			if err != nil {
				return err
			}
			w, err := kratosetcd.New(client).Watch(b.ctx, service)
			if err != nil {
				return err
			}
			b.cleanup(func() { _ = w.Stop() })
			go func() {
				for {
					found, err := w.Next()
					if err != nil {
						return
					}
					for _, i := range found {
						saw(i.ID)
					}
				}
			}()
			return nil
		}},
	{name: naming,
		record: func(service, addr string) pair {
			value, err := json.Marshal(map[string]any{"Op": endpoints.Add, "Addr": addr, "Metadata": nil})
			if err != nil {
				panic(err) // strings only
			}
			return pair{service + "/" + addr, string(value)}
		},
		watch: func(b *bench, service string, saw func(addr string)) error {
			client, err := b.client()
			if err != nil {
				return err
			}
			m, err := endpoints.NewManager(client, service)
			if err != nil {
				return err
			}
			updates, err := m.NewWatchChannel(b.ctx)
			if err != nil {
				return err
			}
			go func() {
				for us := range updates {
					for _, u := range us {
						saw(u.Endpoint.Addr)
					}
				}
			}()
			return nil
		}},
	{name: nothing, record: kitexRecord, watch: func(b *bench, service string, saw func(addr string)) error {
		client, err := b.client()
		if err != nil {
			return err
		}
		prefix := etcd.DefaultPrefix + "/" + service + "/"
		go func() {
			for resp := range client.Watch(b.ctx, prefix, clientv3.WithPrefix()) {
				for _, ev := range resp.Events {
					saw(strings.TrimPrefix(string(ev.Kv.Key), prefix))
				}
			}
		}()
		return nil
	}},
}

// kitexRecord is the record of an instance with three tags, as ours and registry-etcd write it.
func kitexRecord(service, addr string) pair {
	return pair{
		etcd.DefaultPrefix + "/" + service + "/" + addr,
		fmt.Sprintf(`{"network":"tcp","address":%q,"weight":10,"tags":{"env":"production","version":"v1.2.3","zone":"eu-west-1a"}}`, addr),
	}
}

func peerOf(lib string) peer {
	return peers[slices.IndexFunc(peers, func(p peer) bool { return p.name == lib })]
}

// service is a peer's own, because their records differ.
func (p peer) service(name string) string {
	return "bench-" + strings.ReplaceAll(p.name, " ", "-") + "-" + name
}

// seed writes n instances of a service.
func (p peer) seed(b *bench, service string, n int) error {
	pairs := make([]pair, n)
	for i := range n {
		pairs[i] = p.record(service, address(i))
	}
	return b.etcd.put(b.ctx, pairs)
}

// connect returns a Conn with the defaults that a program gets.
func (b *bench) connect(opts ...etcd.Option) (*etcd.Conn, error) {
	conn, err := etcd.Connect(b.etcd.endpoints, opts...)
	if err == nil {
		b.cleanup(func() { _ = conn.Close() })
	}
	return conn, err
}

// quietly keeps the predecessor's etcd client from logging, which ours does not either.
func quietly(c *old.Config) { c.EtcdConfig.Logger = zap.NewNop() }

// configured returns the options by which ours and the predecessor have their etcd client changed; change may be nil.
func configured(change func(*clientv3.Config)) (etcd.Option, old.Option) {
	if change == nil {
		change = func(*clientv3.Config) {}
	}
	return func(c *etcd.Config) { change(c.EtcdConfig) },
		func(c *old.Config) { quietly(c); change(c.EtcdConfig) }
}
