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

// inventoryTimeout limits the time to read all records.
const inventoryTimeout = 5 * time.Second

// Record is one key below the prefix of a Conn. Any program may have written it.
type Record struct {
	Key     string
	Service string // its part of Key

	// The instance, as clients see it. Without meaning if Err is set.
	Network string
	Address string
	Weight  int
	Tags    map[string]string

	Err      error            // why clients ignore the key; nil for an instance
	Lease    clientv3.LeaseID // of the key; 0 means that it stays until somebody deletes it
	Revision int64            // etcd's revision when it was last written
	Created  int64            // etcd's revision when it was created
	Since    time.Time        // when its server got the lease, by the clock of that process; zero for servers of other libraries
}

// ParseRecord returns the record that clients of this Conn read from a key and its value. It is for programs that watch etcd themselves,
// with [Conn.Client]. If the key is not an instance, Err is set.
func (c *Conn) ParseRecord(kv *mvccpb.KeyValue) Record {
	r := Record{Key: string(kv.Key), Lease: clientv3.LeaseID(kv.Lease), Revision: kv.ModRevision, Created: kv.CreateRevision}
	if since, ok := record.LeaseGranted(kv.Lease, time.Now()); ok {
		r.Since = since
	}
	if c == nil {
		r.Err = errNilConn
		return r
	}
	service, _, keyErr := record.SplitKey(c.cfg.Prefix, r.Key)
	value, err := record.Decode(kv.Value, c.cfg.DefaultWeight)
	if keyErr != nil {
		err = keyErr
	}
	r.Service = service
	r.Network, r.Address, r.Weight, r.Tags, r.Err = value.Network, value.Address, int(value.Weight), value.Tags, err
	return r
}

// Records reads all records below the prefix of this Conn, or those of one service if service is not empty. It returns them sorted by
// key, with those that clients ignore, and etcd's revision at that time. It is for tools: each call asks etcd, for 5 s at most, and
// nothing is remembered. The error has the cause and etcd's endpoints.
func (c *Conn) Records(ctx context.Context, service string) (records []Record, revision int64, err error) {
	if c == nil {
		return nil, 0, errNilConn
	}
	prefix := c.cfg.Prefix + "/"
	if service != "" {
		if err := record.CheckService(service); err != nil {
			return nil, 0, err
		}
		prefix = record.ServicePrefix(c.cfg.Prefix, service)
	}
	ctx, cancel := context.WithTimeout(ctx, inventoryTimeout)
	defer cancel()
	defer context.AfterFunc(c.link.Closing(), cancel)()
	cli, err := c.link.Get(ctx)
	var resp *clientv3.GetResponse
	if err == nil {
		resp, err = cli.Get(ctx, prefix, clientv3.WithPrefix())
	}
	switch {
	case c.link.Closing().Err() != nil:
		return nil, 0, ErrClosed
	case err != nil:
		return nil, 0, link.Failed(c.link.Explain(err), fmt.Sprintf("read the records below %s from %s", prefix, c.link.Target()))
	}
	records = make([]Record, len(resp.Kvs))
	for i, kv := range resp.Kvs {
		records[i] = c.ParseRecord(kv)
	}
	return records, resp.Header.Revision, nil
}
