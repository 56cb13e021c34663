package picking

import (
	"cmp"
	"context"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	kitex "github.com/cloudwego/kitex/pkg/discovery"
	"github.com/cloudwego/kitex/pkg/loadbalance"

	"github.com/kitex-contrib/kitex-etcd/runtime/internal/health"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/roster"
)

// addrList is a list of addresses with a space after each but the last.
type addrList string

func (l addrList) has(addr string) bool {
	return addr != "" && !l.every(func(other string) bool { return other != addr })
}

// every says whether f is true of each address in the list.
func (l addrList) every(f func(addr string) bool) bool {
	for addr := range strings.SplitSeq(string(l), " ") {
		if addr != "" && !f(addr) {
			return false
		}
	}
	return true
}

// spare picks an instance for an attempt that must not go to the one that the balancer chose. It asks the balancer again; one
// that goes by the call alone, as a consistent hash, chooses the same again. Then the balancer builds a second picker, of the
// list without the instances to be avoided. Such a build can take long, 170 ms for a consistent hash of 1,000 instances, and when
// everything fails every retry asks for another: so builds take a tenth of the time at most, and between them attempts that need
// another go where the balancer sends them, or, of Kitex's own consistent hash, to any instance that the call may go to. A user's
// balancer always has the last word: no instance is called that it would not have chosen from some list. Safe for concurrent use.
type spare struct {
	list atomic.Pointer[spareList] // of the second picker; nil before the first

	mu   sync.Mutex // held while it is built
	next time.Time  // not before which it is built again
}

// spareList is what the second picker was built from. It is never changed.
type spareList struct {
	of       []kitex.Instance
	avoid    addrList
	excluded *health.Set
	list     []kitex.Instance // of, without avoid and excluded
}

// fits says whether l can serve an attempt: neither those it avoids nor those that are excluded are in it. A nil l does not.
func (l *spareList) fits(latest []kitex.Instance, avoid addrList, excluded *health.Set) bool {
	if l == nil || !roster.Same(l.of, latest) {
		return false
	}
	out := func(addr string) bool { return l.avoid.has(addr) || l.excluded.Has(addr) }
	return avoid.every(out) && (l.excluded == excluded || excluded.Every(out))
}

// picksAgain is how often a balancer is asked again before it builds a second picker.
const picksAgain = 3

// other returns another instance than those to be avoided, rather an excluded one than the same again; nil if there is none.
func (k *pickerKey) other(ctx context.Context, req any, avoid addrList) kitex.Instance {
	latest := k.service.Latest()
	res := kitex.Result{Cacheable: true, CacheKey: k.cacheKey, Instances: k.ejector.usable(latest)}
	good, poor := k.choose(ctx, req, res, picksAgain, avoid)
	if good != nil {
		return good
	}
	if list := k.spareList(latest, avoid); len(list) > 0 {
		res.CacheKey, res.Instances = k.spareKey(), list
		if good, poor2 := k.choose(ctx, req, res, 1, avoid); good != nil || poor2 != nil {
			return cmp.Or(good, poor2)
		}
	}
	if poor == nil {
		poor = k.failover(ctx, latest, avoid)
	}
	return poor
}

// consistent is the name of Kitex's consistent hash.
const consistent = "consist"

// failover is the instance for an attempt whose key leads to one that is to be avoided, while no second picker can be built: any of those
// that the call may go to will do. It is for Kitex's consistent hash alone. Other balancers were asked again, and a user's own may
// have its reasons.
func (k *pickerKey) failover(ctx context.Context, latest []kitex.Instance, avoid addrList) kitex.Instance {
	excluded := k.ejector.tracker.Excluded()
	list := without(latest, func(addr string) bool { return avoid.has(addr) || excluded.Has(addr) })
	inner := k.inner
	if rt, ok := inner.(*router); ok {
		inner, list = rt.inner, rt.members(ctx, list)
	}
	if inner.Name() != consistent || len(list) == 0 {
		return nil
	}
	return list[rand.IntN(len(list))]
}

// choose has a picker of the balancer pick until there is an instance that is neither to be avoided nor excluded. poor is one
// that is excluded.
func (k *pickerKey) choose(ctx context.Context, req any, res kitex.Result, times int, avoid addrList) (good, poor kitex.Instance) {
	excluded := k.ejector.tracker.Excluded()
	k.guard(func() {
		picker := k.inner.GetPicker(res)
		for ; times > 0 && good == nil; times-- {
			inst := picker.Next(ctx, req)
			if inst == nil {
				break
			}
			switch addr := inst.Address().String(); {
			case avoid.has(addr):
			case excluded.Has(addr):
				poor = inst
			default:
				good = inst
			}
		}
		if r, ok := picker.(interface{ Recycle() }); ok {
			r.Recycle()
		}
	})
	return good, poor
}

// spareKey is the CacheKey of the second picker.
func (k *pickerKey) spareKey() string { return k.cacheKey + "/spare" }

// spareList returns the list of the second picker, which it has built unless it is there; nil if it may not be built now.
func (k *pickerKey) spareList(latest []kitex.Instance, avoid addrList) []kitex.Instance {
	excluded := k.ejector.tracker.Excluded()
	if l := k.spare.list.Load(); l.fits(latest, avoid, excluded) {
		return l.list
	}
	if !k.spare.mu.TryLock() {
		return nil
	}
	defer k.spare.mu.Unlock()
	began := time.Now()
	if began.Before(k.spare.next) {
		return nil
	}
	l := &spareList{of: latest, avoid: avoid, excluded: excluded}
	l.list = without(latest, func(addr string) bool { return avoid.has(addr) || excluded.Has(addr) })
	if len(l.list) == 0 { // rather an ejected one than the same again
		l.list = without(latest, avoid.has)
	}
	if rb, ok := k.inner.(loadbalance.Rebalancer); ok && len(l.list) > 0 {
		k.guard(func() {
			rb.Rebalance(kitex.Change{Result: kitex.Result{Cacheable: true, CacheKey: k.spareKey(), Instances: l.list}, Updated: l.list})
		})
	}
	k.spare.list.Store(l)
	k.spare.next = time.Now().Add(9 * time.Since(began))
	return l.list
}
