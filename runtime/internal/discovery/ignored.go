package discovery

import "go.etcd.io/etcd/api/v3/mvccpb"

// ignoredKeys are the keys of one answer of etcd that are not instances. However many, they are one report.
type ignoredKeys struct {
	count    int
	first    string
	revision int64
	err      error
}

func (i *ignoredKeys) add(kv *mvccpb.KeyValue, err error) {
	if i.count++; i.count == 1 {
		i.first, i.revision, i.err = string(kv.Key), kv.ModRevision, err
	}
}
