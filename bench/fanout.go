package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cloudwego/kitex/pkg/discovery"
	"go.etcd.io/etcd/server/v3/etcdmain"

	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
)

const (
	fanoutService   = "bench-fanout"
	fanoutInstances = 100
	fleet           = 100000
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
			"have; all of them live in one process on the machine of etcd, which an etcd of its own serves, directly or through one "+
			"`etcd grpc-proxy start` with its defaults. A quick run has a tenth of them. First instances are added to etcd, one when all "+
			"have seen the one before; they are looked for every millisecond. Then nothing changes for 40 s (3 s in a quick run), in which "+
			"each compares its snapshot with etcd once", fanoutInstances),
		rows: []row{
			{name: "fanout_begin", what: "until all have the service, 64 beginning at a time", unit: duration},
			{name: "fanout_p50", what: "from the beginning of a change until a Conn has it: half of them", unit: duration, from: "fanout_seen"},
			{name: "fanout_p99", what: "99 of 100 of them", unit: duration, from: "fanout_seen", quantile: 0.99},
			{name: "fanout_all", what: "until the last one has it", unit: duration},
			{name: "fanout_conns", what: "connections of etcd", unit: count},
			{name: "fanout_memory", what: "etcd's resident memory", unit: size},
			{name: "fanout_rest_cpu", what: "etcd's processor time for each second without changes", unit: duration},
			{name: "fanout_change_cpu", what: "etcd's processor time for each change", unit: duration},
			{name: "fanout_rest_bytes", what: "messages that etcd sends and receives without changes, HTTP/2 and its pings not included", unit: sizeRate},
			{name: "fanout_change_bytes", what: "the same for each change", unit: size},
			{name: "fanout_proxy_memory", what: "the proxy's resident memory", unit: size},
			{name: "fanout_proxy_rest_cpu", what: "the proxy's processor time for each second without changes", unit: duration},
			{name: "fanout_proxy_change_cpu", what: "the proxy's processor time for each change", unit: duration},
		},
		plots:    []drawing{{title: "From the Put of an instance until a Conn of the crowd has it", from: "fanout_seen"}},
		conclude: concludeFleet,
		open: func(b *bench) ([]side, error) {
			var sides []side
			for i, n := range counts {
				if b.quick && i > 0 && i < len(counts)-1 {
					continue
				}
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
	f := fanout{etcd: e}
	empty, err := f.look()
	if err != nil {
		return nil, err
	}
	endpoint := e.endpoints[0]
	if way == proxied {
		if f.proxy, endpoint, err = startGRPCProxy(ctx, endpoint); err != nil {
			return nil, err
		}
		defer f.proxy.close()
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
	quiet, err := f.over(ctx, 2*time.Second)
	if err != nil {
		return nil, err
	}
	from, err := f.look()
	if err != nil {
		return nil, err
	}
	changes := b.pick(15, 5)
	for i := range changes {
		seen, err := f.change(ctx, crowd, address(freshInstances+i))
		if err != nil {
			return nil, err
		}
		v["fanout_seen"] = append(v["fanout_seen"], seen...)
		v["fanout_all"] = append(v["fanout_all"], slices.Max(seen))
	}
	after, err := f.look()
	if err != nil {
		return nil, err
	}
	rest, err := f.over(ctx, time.Duration(b.pick(40, 3))*time.Second)
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

// fanout is what a turn watches.
type fanout struct {
	etcd  *etcdProcess
	proxy *child // may be nil
}

// sight is what the processes have used until now, or between two times.
type sight struct {
	at          time.Duration // since 1970
	etcd, proxy usage
	bytes       float64
}

func (f fanout) look() (s sight, err error) {
	s.at = time.Duration(time.Now().UnixNano())
	if s.bytes, err = f.etcd.traffic(); err != nil {
		return s, err
	}
	if s.etcd, err = f.etcd.child.usage(); err != nil || f.proxy == nil {
		return s, err
	}
	s.proxy, err = f.proxy.usage()
	return s, err
}

// over returns what is used in a time in which nothing is done.
func (f fanout) over(ctx context.Context, length time.Duration) (s sight, err error) {
	from, err := f.look()
	if err != nil {
		return s, err
	}
	if err := pause(ctx, length); err != nil {
		return s, err
	}
	to, err := f.look()
	return to.since(from), err
}

// since has what grew since earlier.
func (s sight) since(earlier sight) sight {
	s.at -= earlier.at
	s.etcd.cpu -= earlier.etcd.cpu
	s.proxy.cpu -= earlier.proxy.cpu
	s.bytes -= earlier.bytes
	return s
}

// change adds an instance and returns how long each of the crowd took to have it.
func (f fanout) change(ctx context.Context, crowd *child, addr string) (took []float64, err error) {
	if _, err := fmt.Fprintln(crowd.stdin, addr); err != nil {
		return nil, err
	}
	record := kitexRecord(fanoutService, addr)
	begin := time.Now()
	if _, err := f.etcd.client.Put(ctx, record.key, record.value); err != nil {
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

// startGRPCProxy starts etcd's proxy in front of endpoint, and returns when it serves.
func startGRPCProxy(ctx context.Context, endpoint string) (c *child, addr string, err error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, "", err
	}
	addr = ln.Addr().String()
	ln.Close()
	if c, err = startChild("grpcproxy", []string{endpoint, addr}); err != nil {
		return nil, "", err
	}
	client, err := newClient([]string{addr})
	if err == nil {
		defer client.Close()
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		_, err = client.Get(ctx, etcd.DefaultPrefix)
	}
	if err != nil {
		c.close()
		return nil, "", fmt.Errorf("start the gRPC proxy at %s: %w", addr, err)
	}
	return c, addr, nil
}

// serveGRPCProxy is what the process does.
func serveGRPCProxy(args []string) (err error) {
	if os.Stderr, err = os.OpenFile(os.DevNull, os.O_WRONLY, 0); err != nil { // its log
		return err
	}
	go func() {
		awaitParent()
		os.Exit(0)
	}()
	os.Args = []string{"etcd", "grpc-proxy", "start", "--endpoints", args[0], "--listen-addr", args[1]}
	etcdmain.Main(os.Args)
	return nil
}

// usage is what a process uses.
type usage struct {
	cpu     time.Duration
	memory  float64 // resident, in bytes
	sockets int
}

// usage asks the kernel, which is Linux's.
func (c *child) usage() (u usage, err error) {
	proc := filepath.Join("/proc", strconv.Itoa(c.cmd.Process.Pid))
	tasks, err := filepath.Glob(filepath.Join(proc, "task", "*", "schedstat"))
	if err != nil {
		return u, err
	}
	for _, task := range tasks {
		text, err := os.ReadFile(task)
		if err != nil {
			continue // a thread that has just ended
		}
		ns, _, _ := strings.Cut(string(text), " ")
		n, err := strconv.ParseInt(ns, 10, 64)
		if err != nil {
			return u, fmt.Errorf("%s: %w", task, err)
		}
		u.cpu += time.Duration(n)
	}
	text, err := os.ReadFile(filepath.Join(proc, "statm"))
	if err != nil {
		return u, err
	}
	var pages int64
	if _, err := fmt.Sscan(string(text), new(int64), &pages); err != nil {
		return u, fmt.Errorf("%s/statm: %w", proc, err)
	}
	u.memory = float64(pages) * float64(os.Getpagesize())
	files, err := os.ReadDir(filepath.Join(proc, "fd"))
	for _, f := range files {
		if to, _ := os.Readlink(filepath.Join(proc, "fd", f.Name())); strings.HasPrefix(to, "socket:") {
			u.sockets++
		}
	}
	return u, err
}

// concludeFleet draws the straight lines through the smallest and the largest crowd on to a fleet.
func concludeFleet(rf reported) string {
	figures := make(map[string]map[int]float64) // by row and way, and number
	var counts []int
	for _, r := range rf.Rows {
		for _, s := range r.Sides {
			way, number, _ := strings.Cut(s.Side, " × ")
			n, err := strconv.Atoi(number)
			if err != nil {
				continue
			}
			if figures[r.Name+way] == nil {
				figures[r.Name+way] = make(map[int]float64)
			}
			figures[r.Name+way][n] = s.Figure
			counts = append(counts, n)
		}
	}
	if len(counts) == 0 || slices.Min(counts) == slices.Max(counts) {
		return ""
	}
	few, many := slices.Min(counts), slices.Max(counts)
	proxies := (fleet + many - 1) / many
	slope := func(row, way string) float64 {
		f := figures[row+way]
		return (f[many] - f[few]) / float64(many-few)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "### Fleet of %d clients\n\n", fleet)
	fmt.Fprintf(&b, "Reckoned from the rows above, not measured: f(n) is the figure with n clients, its slope is (f(%d) − f(%d)) / %d, and "+
		"f(%d) = f(%d) + slope × %d. All clients watch the service that changes; when w of them do, a change costs f(w). Clients that register keep a lease alive besides, "+
		"which is not in these figures.\n\n",
		many, few, many-few, fleet, many, fleet-many)
	fmt.Fprintf(&b, "| etcd, %s | f(%d) | f(%d) | slope for each client | f(%d) |\n|---|--:|--:|--:|--:|\n", direct, few, many, fleet)
	rows := []struct {
		name, what string
		unit       unit
	}{
		{"fanout_conns", "connections", count},
		{"fanout_memory", "memory", size},
		{"fanout_rest_cpu", "processor time for each second at rest", duration},
		{"fanout_change_cpu", "processor time for each change", duration},
		{"fanout_rest_bytes", "messages at rest", sizeRate},
		{"fanout_change_bytes", "messages for each change", size},
	}
	for _, r := range rows {
		f := figures[r.name+direct]
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", r.what, r.unit.format(f[few]), r.unit.format(f[many]),
			r.unit.format(slope(r.name, direct)), r.unit.format(f[many]+slope(r.name, direct)*float64(fleet-many)))
	}
	fmt.Fprintf(&b, "\nThrough k = %d proxies with %d clients each. A proxy asks for the service once and passes on what its clients ask, as their checks: "+
		"at rest etcd's line is drawn on as above. What is of connections and watches is that of one proxy, and k − 1 times the slope of a "+
		"client without one.\n\n", proxies, many)
	fmt.Fprintf(&b, "| etcd, %s | f(%d) | f(%d) | and | f(%d) |\n|---|--:|--:|--:|--:|\n", proxied, few, many, fleet)
	for _, r := range rows {
		f := figures[r.name+proxied]
		times, each := proxies-1, slope(r.name, direct)
		if strings.HasPrefix(r.name, "fanout_rest") {
			times, each = fleet-many, slope(r.name, proxied)
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s × %d | %s |\n", r.what, r.unit.format(f[few]), r.unit.format(f[many]), r.unit.format(each), times,
			r.unit.format(f[many]+each*float64(times)))
	}
	fmt.Fprintf(&b, "\nEach of the %d proxies: %s of memory, %s for each second at rest, %s for each change, as measured with %d clients.\n", proxies,
		size.format(figures["fanout_proxy_memory"+proxied][many]), duration.format(figures["fanout_proxy_rest_cpu"+proxied][many]),
		duration.format(figures["fanout_proxy_change_cpu"+proxied][many]), many)
	return b.String()
}
