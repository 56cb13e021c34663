package etcd

import (
	"context"
	"fmt"
	"math"

	"github.com/kitex-contrib/kitex-etcd/runtime/internal/record"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/registration"
)

// Change is what [Conn.Update] changes.
type Change struct {
	Weight int               // the new weight; 0 leaves it as it is
	Tags   map[string]string // the new tags, all of them; nil leaves them as they are
}

// Update changes weight and tags under which the servers of this Conn are registered as service, while they run. Clients
// never see them absent: the records are rewritten in place, in one transaction (of 128 records at most). The change lasts until
// the next Update or Register of the server, and survives repairs. A weight that an operator's mark gives comes first while
// the mark lasts; a server that a mark drained has the change when it is back.
//
// Update returns when etcd holds the change. It waits until ctx ends, 3 s at most; an error for that reason does not take the
// change back, which is made as soon as etcd answers. What etcd refuses is not changed. A later Update of the same
// service overtakes one that waits.
func (c *Conn) Update(ctx context.Context, service string, change Change) error {
	if c == nil {
		return errNilConn
	}
	if err := record.CheckService(service); err != nil {
		return err
	}
	if change.Weight < 0 || change.Weight > math.MaxInt32 {
		return fmt.Errorf("etcd: update %s: weight %d is not from 1 to %d, or 0 to leave it", service, change.Weight, math.MaxInt32)
	}
	if change.Weight == 0 && change.Tags == nil {
		return fmt.Errorf("etcd: update %s: the Change is empty", service)
	}
	return c.registrar.Update(ctx, service, registration.Change(change))
}
