package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
)

const (
	// followTimeout is how long a server has to follow its mark.
	followTimeout = 3 * time.Second
	// followPause is between two looks whether it has.
	followPause = 10 * time.Millisecond
)

// marking is the flags of the commands that write marks.
type marking struct {
	force  bool
	while  time.Duration
	reason string
}

func (p *program) markCommand(cmd *cobra.Command, m *marking) *cobra.Command {
	p.outputFlag(cmd)
	cmd.Flags().DurationVar(&m.while, "for", 0, "how long, such as 30m, in whole seconds; without it, until it is undone")
	cmd.Flags().StringVar(&m.reason, "reason", "", "why, for the server's log and other operators")
	cmd.ValidArgsFunction = p.completeServer
	return cmd
}

func (p *program) drainCommand() *cobra.Command {
	var m marking
	cmd := p.markCommand(&cobra.Command{
		Use:   "drain SERVICE ADDRESS…",
		Short: "Take servers out of service; they run on",
		Long: `Takes servers out of service: each removes its record from etcd, so that all clients, those of other libraries included, stop to call
it within milliseconds. It runs on, finishes the calls that it has, and stays drained when it is restarted, until undrain or the end of --for.`,
		Example: "  kitex-etcd drain Hello 10.0.0.7:8888 --for 30m --reason 'heap dump'",
		Args:    cobra.MinimumNArgs(2),
		RunE: p.withConn(func(cmd *cobra.Command, conn *etcd.Conn, args []string) error {
			return p.each(args, func(service, addr string) error {
				return operation{p, conn, service, addr}.drain(cmd.Context(), m)
			})
		}),
	}, &m)
	cmd.Flags().BoolVar(&m.force, "force", false, "drain the last instance of a service too")
	return cmd
}

func (p *program) undrainCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "undrain SERVICE ADDRESS…",
		Short:   "Put drained servers back into service",
		Long:    "Ends the drain of servers, and waits until they are registered again. A weight in the mark stays.",
		Example: "  kitex-etcd undrain Hello 10.0.0.7:8888",
		Args:    cobra.MinimumNArgs(2),
		RunE: p.withConn(func(cmd *cobra.Command, conn *etcd.Conn, args []string) error {
			return p.each(args, func(service, addr string) error {
				return operation{p, conn, service, addr}.undrain(cmd.Context())
			})
		}),
		ValidArgsFunction: p.completeServer,
	}
	p.outputFlag(cmd)
	return cmd
}

func (p *program) weightCommand() *cobra.Command {
	var m marking
	return p.markCommand(&cobra.Command{
		Use:   "weight SERVICE ADDRESS WEIGHT",
		Short: "Give servers another weight",
		Long: `Gives a server another weight, from 1 on, or with "default" the one that it registered with. Its share of the calls is its weight
among those of all instances. It is so for all clients, and after a restart, until it is undone or the end of --for.`,
		Example: `  kitex-etcd weight Hello 10.0.0.7:8888 1
  kitex-etcd weight Hello 10.0.0.7:8888 default`,
		Args: cobra.ExactArgs(3),
		RunE: p.withConn(func(cmd *cobra.Command, conn *etcd.Conn, args []string) error {
			o := operation{p, conn, args[0], args[1]}
			if args[2] == "default" {
				return o.unweigh(cmd.Context())
			}
			weight, err := strconv.ParseInt(args[2], 10, 32)
			if err != nil || weight < 1 {
				return fmt.Errorf("weight %q: it has to be a whole number from 1 on, or default; to take the server out, drain it", args[2])
			}
			return o.weigh(cmd.Context(), m, int(weight))
		}),
	}, &m)
}

// each calls f for every address; what fails does not keep the others from it.
func (p *program) each(args []string, f func(service, addr string) error) error {
	var all error
	for _, addr := range args[1:] {
		all = errors.Join(all, f(args[0], addr))
	}
	return all
}

// operation is what an operator does to one server.
type operation struct {
	*program
	conn          *etcd.Conn
	service, addr string
}

func (o operation) name() string { return printable(o.service) + " " + printable(o.addr) }

func (o operation) drain(ctx context.Context, m marking) error {
	return o.write(ctx, m, "drained", func(mark *etcd.Mark) { mark.Drain = true })
}

func (o operation) undrain(ctx context.Context) error {
	return o.undo(ctx, "in service", func(mark *etcd.Mark) { mark.Drain = false })
}

func (o operation) weigh(ctx context.Context, m marking, weight int) error {
	return o.write(ctx, m, fmt.Sprintf("weight %d", weight), func(mark *etcd.Mark) { mark.Weight = weight })
}

func (o operation) unweigh(ctx context.Context) error {
	return o.undo(ctx, "as registered", func(mark *etcd.Mark) { mark.Weight = 0 })
}

// errLast is why the last instance of a service is not drained without force.
var errLast = errors.New("clients would have none to call")

// sight is what an operator sees of a server.
type sight struct {
	record   *etcd.Record    // nil: there is none
	mark     etcd.PlacedMark // without a Key: there is none
	others   int             // other instances that clients call
	revision int64           // of etcd, before the marks were read
}

// look reads the server's record and mark.
func (o operation) look(ctx context.Context) (seen sight, err error) {
	records, revision, err := o.conn.Records(ctx, o.service)
	if err != nil {
		return seen, err
	}
	seen.revision = revision
	marks, err := o.conn.Marks(ctx, o.service)
	if err != nil {
		return seen, err
	}
	drained := make(map[string]bool)
	for _, m := range marks {
		drained[m.Address] = m.Err == nil && m.Drain
		if m.Address == o.addr {
			seen.mark = m
		}
	}
	for i, r := range records {
		switch addr := addressOf(r); {
		case addr == o.addr:
			seen.record = &records[i]
		case r.Err == nil && !drained[addr]:
			seen.others++
		}
	}
	if seen.record != nil || seen.mark.Key != "" {
		return seen, nil
	}
	c := &catalog{records: records}
	if len(records)+len(marks) == 0 {
		return seen, fmt.Errorf("no server of %s is registered%s", printable(o.service), suggest(o.service, serviceNames(ctx, o.conn)))
	}
	return seen, fmt.Errorf("no server of %s is registered at %s%s", printable(o.service), printable(o.addr), suggest(o.addr, c.addresses()))
}

// place writes the mark that change makes of the present one. Where it would be the last instance that is drained, and others write
// marks at the same time, it looks again.
func (o operation) place(ctx context.Context, m marking, change func(*etcd.Mark)) (wanted etcd.Mark, placed, before etcd.PlacedMark, err error) {
	for {
		seen, err := o.look(ctx)
		if err != nil {
			return wanted, placed, before, err
		}
		wanted = seen.mark.Mark
		change(&wanted)
		wanted.Reason = m.reason
		careful := wanted.Drain && !seen.mark.Drain && !m.force
		switch r := seen.record; {
		case careful && seen.others == 0:
			return wanted, placed, before, fmt.Errorf("%s is the last instance of the service: %w; --force drains it nevertheless", o.name(), errLast)
		case r != nil && r.Lease == clientv3.NoLease:
			return wanted, placed, before, fmt.Errorf("%s has no lease, so no server keeps it: it was written by hand, or by another program; etcdctl del %s removes it", o.name(), r.Key)
		case !careful:
			placed, before, err = o.conn.SetMark(ctx, o.service, o.addr, wanted, m.while)
			return wanted, placed, before, err
		}
		placed, before, err = o.conn.SetMarkSince(ctx, o.service, o.addr, wanted, m.while, seen.revision)
		if !errors.Is(err, etcd.ErrMarksChanged) {
			return wanted, placed, before, err
		}
	}
}

// write changes the mark and waits until the server has followed it.
func (o operation) write(ctx context.Context, m marking, done string, change func(*etcd.Mark)) error {
	if m.while < 0 || m.while > 0 && m.while < time.Second {
		return fmt.Errorf("--for %v: it has to be a second or more", m.while)
	}
	wanted, placed, before, err := o.place(ctx, m, change)
	if err != nil {
		return err
	}
	if before.Key != "" {
		o.say("%s had a mark already, which is replaced: %s", o.name(), markText(before))
	}
	err = o.await(ctx, placed.Revision, func(kv *mvccpb.KeyValue) bool {
		if wanted.Drain {
			return kv == nil
		}
		return kv != nil && o.conn.ParseRecord(kv).Weight == wanted.Weight
	})
	switch {
	case errors.Is(err, errNotFollowed):
		return o.takeBack(ctx, placed, before)
	case err != nil:
		return err
	}
	return o.done(done, wanted, m.while)
}

var errNotFollowed = errors.New("the server did not follow")

// await looks until the server's record is as wanted. rev is that of the operator's own mark, 0 when it is gone.
func (o operation) await(ctx context.Context, rev int64, ok func(*mvccpb.KeyValue) bool) error {
	mark := o.conn.MarkPrefix(o.service) + o.addr
	key := o.connection.prefix + "/" + o.service + "/" + o.addr
	ctx, cancel := context.WithTimeout(ctx, followTimeout)
	defer cancel()
	for {
		resp, err := o.conn.Client().Txn(ctx).Then(clientv3.OpGet(key), clientv3.OpGet(mark)).Commit()
		if ctx.Err() != nil {
			return errNotFollowed
		}
		if away(err) {
			pause(ctx, followPause)
			continue // whether it is away for long, what comes after says
		}
		if err != nil {
			return fmt.Errorf("etcd: look at %s: %w", o.name(), err)
		}
		if kvs := resp.Responses[1].GetResponseRange().Kvs; len(kvs) > 0 && kvs[0].ModRevision != rev {
			return fmt.Errorf("another operator changed the mark of %s meanwhile, and that holds: %s", o.name(), markText(o.conn.ParseMark(kvs[0])))
		} else if len(kvs) == 0 && rev != 0 {
			return fmt.Errorf("another operator took the mark of %s away meanwhile, or its time is over", o.name())
		}
		var kv *mvccpb.KeyValue
		if kvs := resp.Responses[0].GetResponseRange().Kvs; len(kvs) > 0 {
			kv = kvs[0]
		}
		if ok(kv) {
			return nil
		}
		pause(ctx, followPause)
	}
}

// away says whether err is that of an etcd that cannot be reached.
func away(err error) bool {
	var e rpctypes.EtcdError
	if errors.As(err, &e) {
		return e.Code() == codes.Unavailable
	}
	return status.Code(err) == codes.Unavailable
}

// takeBack undoes a mark that was not followed, unless somebody else has changed it.
func (o operation) takeBack(ctx context.Context, placed, before etcd.PlacedMark) error {
	ctx = context.WithoutCancel(ctx) // it may be the operator's interrupt that ended the waiting
	var err error
	if before.Key != "" && before.Err == nil && before.Lease == clientv3.NoLease {
		_, _, err = o.conn.SetMark(ctx, o.service, o.addr, before.Mark, 0)
	} else {
		_, err = o.conn.ClearMark(ctx, o.service, o.addr, placed.Revision)
	}
	if err != nil {
		return fmt.Errorf("%w: the mark of %s stands, and it is not known whether the server follows it; undo it, or look with kitex-etcd instances, when etcd answers", err, o.name())
	}
	return fmt.Errorf("%s did not follow within %v, and the mark was taken back. Servers follow marks from kitex-etcd v0.2.0 on, if their role may read below %s and they reach etcd; "+
		"those of registry-etcd and of other libraries do not", o.name(), followTimeout, o.conn.MarkPrefix(o.service))
}

// undo takes a part of the mark away, or all of it when nothing else is wanted, and waits until the server is registered so.
func (o operation) undo(ctx context.Context, done string, change func(*etcd.Mark)) error {
	seen, err := o.look(ctx)
	if err != nil {
		return err
	}
	was := seen.mark
	wanted := was.Mark
	change(&wanted)
	if was.Key == "" || was.Err == nil && wanted == was.Mark {
		o.say("%s had no such mark", o.name())
		return o.done(done, wanted, 0)
	}
	var rev int64
	if wanted.Drain || wanted.Weight != 0 {
		placed, _, err := o.conn.SetMark(ctx, o.service, o.addr, wanted, 0)
		if err != nil {
			return err
		}
		rev = placed.Revision
	} else if _, err := o.conn.ClearMark(ctx, o.service, o.addr, 0); err != nil {
		return err
	}
	if wanted.Drain {
		return o.done(done, wanted, 0)
	}
	registered := false
	err = o.await(ctx, rev, func(kv *mvccpb.KeyValue) bool {
		registered = kv != nil
		return registered && (was.Drain || was.Err != nil || o.conn.ParseRecord(kv).Weight != was.Weight)
	})
	if errors.Is(err, errNotFollowed) && registered {
		o.say("%s has weight %d still: it registered with that, or does not follow marks", o.name(), was.Weight)
		err = nil
	}
	if errors.Is(err, errNotFollowed) {
		return fmt.Errorf("the mark of %s is taken away, but the server was not registered within %v: it is stopped, or does not reach etcd", o.name(), followTimeout)
	}
	if err != nil {
		return err
	}
	return o.done(done, wanted, 0)
}

// outcome is what is printed of an operation.
type outcome struct {
	Service string `json:"service" yaml:"service"`
	Address string `json:"address" yaml:"address"`
	Drain   bool   `json:"drain" yaml:"drain"`
	Weight  int    `json:"weight,omitempty" yaml:"weight,omitempty"` // that the mark gives
	Reason  string `json:"reason,omitempty" yaml:"reason,omitempty"`
	For     string `json:"for,omitempty" yaml:"for,omitempty"`
}

func (o operation) done(what string, mark etcd.Mark, while time.Duration) error {
	out := outcome{o.service, o.addr, mark.Drain, mark.Weight, mark.Reason, ""}
	if while > 0 {
		out.For = duration(while)
	}
	if !o.tabular() {
		return o.object(out)
	}
	if out.For != "" {
		what += " for " + out.For
	}
	_, err := fmt.Fprintf(o.stdout, "%s %s\n", o.name(), what)
	return err
}
