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

// inventoryTimeout bounds the reading of all records.
const inventoryTimeout = 5 * time.Second

// Record is one key below the prefix of a Conn, whoever wrote it.
type Record struct {
	Key     string
	Service string // the part of Key that names it

	// The instance, as clients see it. Without meaning when Err is set.
	Network string
	Address string
	Weight  int
	Tags    map[string]string

	Err      error            // why clients ignore the key; nil for an instance
	Lease    clientv3.LeaseID // under which it stands; 0 means until somebody deletes it
	Revision int64            // of etcd, at which it was last written
	Created  int64            // of etcd, at which it was first written since it was last absent
	Since    time.Time        // when its server was granted the lease, by that process's clock; zero where other programs chose the lease
}

// ParseRecord returns what clients of this Conn make of a key and its value, for programs that watch etcd themselves,
// with Client. What is no instance has Err set.
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

// Records reads what etcd holds below the prefix of this Conn, or of one service when service is not empty, and the
// revision of etcd at which that is so. The records are sorted by key and include what clients ignore. It is for tools:
// every call asks etcd, for 5 s at most, and nothing is remembered. The error names etcd's endpoints and the cause.
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
