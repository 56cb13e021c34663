package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// records is the example's part of etcd, read as any other program could.
type records struct{ etcd *clientv3.Client }

// ping fails unless etcd answers within five seconds.
func (r records) ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	_, err := r.etcd.Get(ctx, prefix)
	return err
}

// await waits until the servers of service that have a record are those called names, no more and no fewer, and
// prints their records.
func (r records) await(ctx context.Context, service string, names ...string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	key := prefix + "/" + service + "/"
	for {
		resp, err := r.etcd.Get(ctx, key, clientv3.WithPrefix())
		if err != nil {
			return r.failed(ctx, service, names, err)
		}
		var found []string
		var lines strings.Builder
		for _, kv := range resp.Kvs {
			var record struct{ Tags map[string]string }
			if err := json.Unmarshal(kv.Value, &record); err != nil {
				return fmt.Errorf("record %s: %w", kv.Key, err)
			}
			found = append(found, record.Tags["name"])
			fmt.Fprintf(&lines, "          %s\n            %s\n", kv.Key, kv.Value)
		}
		if slices.Sort(found); slices.Equal(found, names) {
			say("etcd holds %d of %s:\n%s", len(names), service, strings.TrimSuffix(lines.String(), "\n"))
			return nil
		}
		// The next change may be what is missing.
		change := <-r.etcd.Watch(ctx, key, clientv3.WithPrefix(), clientv3.WithRev(resp.Header.Revision+1))
		if err := change.Err(); err != nil {
			return r.failed(ctx, service, names, err)
		}
	}
}

func (r records) failed(ctx context.Context, service string, names []string, err error) error {
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return fmt.Errorf("waiting for %s of %s: %w", strings.Join(names, ", "), service, err)
}
