package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cloudwego/kitex/pkg/discovery"
)

const (
	fanoutService   = "bench-fanout"
	fanoutInstances = 100
)

// The two ways of a crowd to etcd.
const (
	direct  = "direct"
	proxied = "gRPC proxy"
)

// fanoutFamily is what a crowd of clients costs etcd, directly and through etcd's own gRPC proxy.
func fanoutFamily(counts ...int) family {
	return family{
		name:   "fanout",
		rounds: 1,
		about: fmt.Sprintf("Conns that watch one service of %d, each with an etcd client, a connection and a watch of its own, as a process each would "+
			"have. All live in one process, on the machine of an etcd of their own, which they reach directly or through one "+
			"`etcd grpc-proxy start` with its defaults. A quick run has a tenth of them. First instances are added, each when all "+
			"have seen the one before; they are looked for every millisecond. Then nothing changes for %s (3 s in a quick run), in which "+
			"each Conn asks etcd for its revision once", fanoutInstances, duration.format(float64(restLength))),
		rows: []row{
			{name: "fanout_begin", what: "until all have the service, 64 beginning at a time", unit: duration},
			{name: "fanout_p50", what: "from the beginning of a change until a Conn has it: half of them", unit: duration, from: "fanout_seen"},
			{name: "fanout_p99", what: "99 of 100 of them", unit: duration, from: "fanout_seen", quantile: 0.99},
			{name: "fanout_all", what: "until the last one has it", unit: duration},
			{name: "fanout_conns", what: "connections of etcd", unit: count},
			{name: "fanout_memory", what: "etcd's resident memory, without the program itself", unit: size},
			{name: "fanout_rest_cpu", what: "etcd's processor time for each second without changes", unit: duration},
			{name: "fanout_change_cpu", what: "etcd's processor time for each change", unit: duration},
			{name: "fanout_rest_bytes", what: "messages that etcd sends and receives without changes, HTTP/2 and its pings not included", unit: sizeRate},
			{name: "fanout_change_bytes", what: "the same for each change", unit: size},
			{name: "fanout_proxy_memory", what: "the proxy's resident memory, without the program itself", unit: size},
			{name: "fanout_proxy_rest_cpu", what: "the proxy's processor time for each second without changes", unit: duration},
			{name: "fanout_proxy_change_cpu", what: "the proxy's processor time for each change", unit: duration},
		},
		plots:    []drawing{{title: "From the Put of an instance until a Conn of the crowd has it", from: "fanout_seen"}},
		conclude: concludeFleet,
		open: func(b *bench) ([]side, error) {
			var sides []side
			for _, n := range counts {
				n = b.pick(n, n/10)
				for _, way := range []string{direct, proxied} {
					sides = append(sides, side{fmt.Sprintf("%s × %d", way, n), func(ctx context.Context) (values, error) { return fanoutTurn(ctx, b, way, n) }})
				}
			}
			return sides, nil
		},
	}
}

// fanoutTurn has an etcd of its own, whose memory no other crowd has grown.
func fanoutTurn(ctx context.Context, b *bench, way string, n int) (values, error) {
	e, err := startEtcd()
	if err != nil {
		return nil, err
	}
	defer e.close()
	if err := peers[0].seed(&bench{ctx: ctx, etcd: e}, fanoutService, fanoutInstances); err != nil {
		return nil, err
	}
	g := gauge{etcd: e}
	empty, err := g.look()
	if err != nil {
		return nil, err
	}
	endpoint := e.endpoints[0]
	if way == proxied {
		if g.proxy, endpoint, err = startGRPCProxy(ctx, endpoint); err != nil {
			return nil, err
		}
		defer g.proxy.close()
	}
	crowd, err := startChild("crowd", []string{strconv.Itoa(n), endpoint})
	if err != nil {
		return nil, err
	}
	defer crowd.close()
	var began time.Duration
	if err := crowd.read(&began); err != nil {
		return nil, err
	}
	v := values{"fanout_begin": {float64(began)}}
	if err := pause(ctx, 2*time.Second); err != nil { // the garbage of the beginning goes
		return nil, err
	}
	quiet, err := g.over(ctx, 2*time.Second)
	if err != nil {
		return nil, err
	}
	from, err := g.look()
	if err != nil {
		return nil, err
	}
	changes := b.pick(15, 5)
	for i := range changes {
		seen, err := g.change(ctx, crowd, address(freshInstances+i))
		if err != nil {
			return nil, err
		}
		v["fanout_seen"] = append(v["fanout_seen"], seen...)
		v["fanout_all"] = append(v["fanout_all"], slices.Max(seen))
	}
	after, err := g.look()
	if err != nil {
		return nil, err
	}
	rest, err := g.over(ctx, time.Duration(b.pick(int(restLength/time.Second), 3))*time.Second)
	if err != nil {
		return nil, err
	}
	changed := after.since(from)
	v["fanout_conns"] = []float64{float64(after.etcd.sockets - empty.etcd.sockets)}
	v["fanout_memory"] = []float64{after.etcd.memory}
	if way == proxied {
		v["fanout_proxy_memory"] = []float64{after.proxy.memory}
	}
	for name, of := range map[string]func(sight) float64{
		"fanout_%s_bytes":     func(s sight) float64 { return s.bytes },
		"fanout_%s_cpu":       func(s sight) float64 { return float64(s.etcd.cpu) },
		"fanout_proxy_%s_cpu": func(s sight) float64 { return float64(s.proxy.cpu) },
	} {
		if way == proxied || !strings.Contains(name, "proxy") {
			perSecond := of(quiet) / quiet.at.Seconds()
			v[fmt.Sprintf(name, "change")] = []float64{(of(changed) - perSecond*changed.at.Seconds()) / float64(changes)}
			v[fmt.Sprintf(name, "rest")] = []float64{of(rest) / rest.at.Seconds()}
		}
	}
	return v, nil
}

// change adds an instance and returns how long each of the crowd took to have it.
func (g gauge) change(ctx context.Context, crowd *child, addr string) (took []float64, err error) {
	if _, err := fmt.Fprintln(crowd.stdin, addr); err != nil {
		return nil, err
	}
	record := kitexRecord(fanoutService, addr)
	begin := time.Now()
	if _, err := g.etcd.client.Put(ctx, record.key, record.value); err != nil {
		return nil, err
	}
	var seen []int64
	if err := crowd.read(&seen); err != nil {
		return nil, err
	}
	for _, at := range seen {
		took = append(took, float64(at-begin.UnixNano()))
	}
	return took, pause(ctx, 100*time.Millisecond) // one change at a time
}

// joinCrowd is what the process of a crowd does. It says how long it took to begin and then, for each address that it
// reads, when each of its Conns had it.
func joinCrowd(args []string) error {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	b := &bench{ctx: context.Background(), etcd: &etcdProcess{endpoints: args[1:]}}
	crowd := make([]discovery.Resolver, n)
	begin := time.Now()
	if err := atOnce(manyAtOnce, n, func(i int) error {
		conn, err := b.connect()
		if err != nil {
			return err
		}
		crowd[i-1] = conn.Resolver()
		for time.Since(begin) < time.Minute { // on a busy machine 3 s may not do for a first look-up
			if _, err = crowd[i-1].Resolve(b.ctx, fanoutService); err == nil {
				return nil
			}
		}
		return err
	}); err != nil {
		return err
	}
	out := json.NewEncoder(os.Stdout)
	if err := out.Encode(time.Since(begin)); err != nil {
		return err
	}
	known := fanoutInstances
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		known++
		if err := out.Encode(haveSeen(crowd, lines.Text(), known)); err != nil {
			return err
		}
	}
	return nil
}

// haveSeen waits until each of the crowd has addr, the last of so many instances, and returns when it was first found.
func haveSeen(crowd []discovery.Resolver, addr string, known int) []int64 {
	seen := make([]int64, len(crowd))
	for missing := len(crowd); missing > 0; time.Sleep(time.Millisecond) { // polled, to disturb what is measured least
		for i, r := range crowd {
			if seen[i] != 0 {
				continue
			}
			res, err := r.Resolve(context.Background(), fanoutService)
			if err != nil || len(res.Instances) < known {
				continue
			}
			if slices.ContainsFunc(res.Instances, func(in discovery.Instance) bool { return in.Address().String() == addr }) {
				seen[i] = time.Now().UnixNano()
				missing--
			}
		}
	}
	return seen
}
