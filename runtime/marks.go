package etcd

import (
	"context"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/kitex-contrib/kitex-etcd/runtime/internal/link"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/record"
)

// Mark is what an operator wants from one server. The server follows it while it runs: see [Conn.SetMark]. The zero value wants
// nothing.
type Mark struct {
	Drain  bool   // the server deletes its record, so that no client calls it, and serves on
	Weight int    // the server's record has this weight, not the one with which it registered; 0 means no change
	Reason string // for people: it appears in the server's log and event
}

// PlacedMark is a Mark in etcd. Any program may have written it.
type PlacedMark struct {
	Mark
	Key      string
	Service  string
	Address  string           // host:port of the server
	Lease    clientv3.LeaseID // the mark ends with it; 0 means that it stays until somebody deletes it
	Revision int64            // etcd's revision when it was last written
	Err      error            // why servers ignore it; nil if they do not
}

// ParseMark returns the mark that servers read from a key below [Conn.MarkPrefix] and its value. It is for programs that watch etcd
// themselves, with [Conn.Client].
func (c *Conn) ParseMark(kv *mvccpb.KeyValue) PlacedMark {
	m := PlacedMark{Key: string(kv.Key), Lease: clientv3.LeaseID(kv.Lease), Revision: kv.ModRevision}
	if c == nil {
		m.Err = errNilConn
		return m
	}
	mark, err := record.DecodeMark(kv.Value)
	var keyErr error
	if m.Service, m.Address, keyErr = record.SplitMarkKey(c.cfg.Prefix, m.Key); keyErr != nil {
		err = keyErr
	}
	m.Mark, m.Err = Mark(mark), err
	return m
}

// MarkPrefix returns the beginning of the keys of all marks, or of those of one service if service is not empty. A nil Conn returns an
// empty string.
func (c *Conn) MarkPrefix(service string) string {
	switch {
	case c == nil:
		return ""
	case service == "":
		return record.MarkPrefix(c.cfg.Prefix)
	}
	return record.ServiceMarkPrefix(c.cfg.Prefix, service)
}

// Marks reads the marks of all services, or of one service if service is not empty. It returns them sorted by key, with those that
// servers ignore. It is for tools: each call asks etcd, for 5 s at most.
func (c *Conn) Marks(ctx context.Context, service string) ([]PlacedMark, error) {
	if c == nil {
		return nil, errNilConn
	}
	if service != "" {
		if err := record.CheckService(service); err != nil {
			return nil, err
		}
	}
	var marks []PlacedMark
	err := c.askAbout(ctx, "read the marks below "+c.MarkPrefix(service), func(ctx context.Context, cli *clientv3.Client) error {
		resp, err := cli.Get(ctx, c.MarkPrefix(service), clientv3.WithPrefix())
		if err != nil {
			return err
		}
		for _, kv := range resp.Kvs {
			marks = append(marks, c.ParseMark(kv))
		}
		return nil
	})
	return marks, err
}

// SetMark writes a mark for the server of service at addr, host:port. It replaces a mark that is there, and returns that one as before; if
// there was none, the Key of before is empty. The mark ends after the time while, or, if while is 0, when somebody deletes it. SetMark
// does not wait for the server, and does not know whether there is one. It is for tools; a program changes the weight of its own
// servers with [Conn.Update].
func (c *Conn) SetMark(ctx context.Context, service, addr string, mark Mark, while time.Duration) (placed, before PlacedMark, err error) {
	return c.setMark(ctx, service, addr, mark, while, nil)
}

// SetMarkSince is SetMark if no mark of the service was written after a revision of etcd, such as Records returns, and else
// [ErrMarksChanged]. So two operators who look at the same time do not drain the last two servers of a service, one each.
func (c *Conn) SetMarkSince(ctx context.Context, service, addr string, mark Mark, while time.Duration, revision int64) (placed, before PlacedMark, err error) {
	since := clientv3.Compare(clientv3.ModRevision(c.MarkPrefix(service)), "<", revision+1).WithPrefix()
	return c.setMark(ctx, service, addr, mark, while, []clientv3.Cmp{since})
}

func (c *Conn) setMark(ctx context.Context, service, addr string, mark Mark, while time.Duration, cmps []clientv3.Cmp) (placed, before PlacedMark, err error) {
	value, err := c.checkMark(service, addr, mark)
	if err != nil {
		return placed, before, err
	}
	key := record.MarkKey(c.cfg.Prefix, service, addr)
	err = c.askAbout(ctx, "write the mark "+key, func(ctx context.Context, cli *clientv3.Client) error {
		lease := clientv3.NoLease
		if while > 0 {
			granted, err := cli.Grant(ctx, int64((while+time.Second-1)/time.Second))
			if err != nil {
				return err
			}
			lease = granted.ID
		}
		resp, err := cli.Txn(ctx).If(cmps...).Then(clientv3.OpPut(key, value, clientv3.WithLease(lease), clientv3.WithPrevKV())).Commit()
		if err == nil && !resp.Succeeded {
			err = ErrMarksChanged
		}
		if err != nil {
			if lease != clientv3.NoLease {
				_, _ = cli.Revoke(ctx, lease) // it ends by itself otherwise
			}
			return err
		}
		placed = c.ParseMark(&mvccpb.KeyValue{Key: []byte(key), Value: []byte(value), ModRevision: resp.Header.Revision, Lease: int64(lease)})
		if kv := resp.Responses[0].GetResponsePut().PrevKv; kv != nil {
			before = c.ParseMark(kv)
		}
		return nil
	})
	return placed, before, err
}

// ClearMark deletes the mark of the server of service at addr: the server is registered again as it wants to be. It returns whether there
// was a mark. If revision is not 0, it deletes the mark only if that is still its revision.
func (c *Conn) ClearMark(ctx context.Context, service, addr string, revision int64) (cleared bool, err error) {
	if _, err := c.checkMark(service, addr, Mark{}); err != nil {
		return false, err
	}
	key := record.MarkKey(c.cfg.Prefix, service, addr)
	err = c.askAbout(ctx, "delete the mark "+key, func(ctx context.Context, cli *clientv3.Client) error {
		as := clientv3.Compare(clientv3.CreateRevision(key), ">", 0)
		if revision != 0 {
			as = clientv3.Compare(clientv3.ModRevision(key), "=", revision)
		}
		resp, err := cli.Txn(ctx).If(as).Then(clientv3.OpDelete(key)).Commit()
		if err == nil {
			cleared = resp.Succeeded
		}
		return err
	})
	return cleared, err
}

// checkMark returns the value of a mark that can be written.
func (c *Conn) checkMark(service, addr string, mark Mark) (value string, err error) {
	if c == nil {
		return "", errNilConn
	}
	if err := record.CheckService(service); err != nil {
		return "", err
	}
	if _, _, err := record.SplitHostPort(addr); err != nil {
		return "", fmt.Errorf("etcd: the mark of a server at %q: %w", addr, err)
	}
	if value, err = record.EncodeMark(record.Mark(mark)); err != nil {
		return "", fmt.Errorf("etcd: the mark of %s: %w", addr, err)
	}
	return value, nil
}

// askAbout has ask done with the etcd client, for inventoryTimeout at most. what is said in its error.
func (c *Conn) askAbout(ctx context.Context, what string, ask func(context.Context, *clientv3.Client) error) error {
	ctx, cancel := context.WithTimeout(ctx, inventoryTimeout)
	defer cancel()
	defer context.AfterFunc(c.link.Closing(), cancel)()
	cli, err := c.link.Get(ctx)
	if err == nil {
		err = c.link.Explain(ask(ctx, cli))
	}
	switch {
	case c.link.Closing().Err() != nil:
		return ErrClosed
	case err != nil:
		return link.Failed(err, what+" at "+c.link.Target())
	}
	return nil
}
