package link

import (
	"context"
	"time"

	"github.com/cloudwego/kitex/pkg/klog"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/connectivity"
)

const (
	// lostAfter is how long there may be no connection before etcd counts as lost: a restart is shorter.
	lostAfter = 3 * time.Second
	// leaderPatience is how long a member may say that it has no leader before it is left for another one. The first time, it
	// has had none for three elections already.
	leaderPatience = 2 * time.Second
	// leaderless is how long it may be between two such answers of one outage.
	leaderlessGap = 10 * time.Second
)

// presence says whether etcd is there, for the Conn as a whole:
//
//	                no connection for lostAfter, or Lost
//	there (at first) ───────────────────────────────────> lost
//	       ^                                               │
//	       └───────── a new connection, or Answered ───────┘
//
// A loss that Lost told of is over with Answered only: it came with a connection that stood.
type presence struct {
	lostAt   time.Time // zero: it is there
	standing bool      // the loss was told of while there was a connection

	leaderless     time.Time // since when the member has no leader; zero: it has one
	leaderlessSeen time.Time // the last time that it said so
}

// follow watches the connections of cli, until ctx ends.
func (l *Link) follow(ctx context.Context, cli *clientv3.Client) {
	conn := cli.ActiveConnection()
	var down time.Time // since when there is no connection
	for ctx.Err() == nil {
		state := conn.GetState()
		wait, cancel := context.WithCancel(ctx)
		switch state {
		case connectivity.Ready:
			down = time.Time{}
			if l.cfg.Client != nil {
				l.connected()
			}
			l.found(false)
		case connectivity.Connecting, connectivity.TransientFailure:
			if down.IsZero() {
				down = time.Now()
			}
			if left := time.Until(down.Add(lostAfter)); left > 0 {
				wait, cancel = context.WithTimeout(ctx, left)
			} else {
				l.lost(context.DeadlineExceeded, false) // Explain knows better
			}
		}
		conn.WaitForStateChange(wait, state)
		cancel()
	}
}

// Lost notes that etcd does not do what it is there for, although there may be a connection. The first to say so is heard.
func (l *Link) Lost(err error) {
	if cli := l.Current(); cli != nil && cli.ActiveConnection().GetState() != connectivity.Ready {
		return // the connection is about to be back, or else follow says it
	}
	l.lost(err, true)
}

// Answered notes that etcd does what it is there for.
func (l *Link) Answered() {
	l.mu.Lock()
	quiet := l.leaderless.IsZero() && l.lostAt.IsZero()
	l.leaderless = time.Time{}
	l.mu.Unlock()
	if !quiet {
		l.found(true)
	}
}

// lost says once that etcd is lost.
func (l *Link) lost(err error, standing bool) {
	l.mu.Lock()
	first := l.lostAt.IsZero()
	if first {
		l.lostAt, l.standing = time.Now(), standing
	}
	l.mu.Unlock()
	if first {
		err = l.Explain(err)
		klog.Warnf("etcd: %s is lost: %v; calls go to the instances last known, registrations cannot be renewed; still trying", l.Target(), err)
		l.cfg.notify(EtcdLost, err)
	}
}

// found says once that etcd is back.
func (l *Link) found(answered bool) {
	l.mu.Lock()
	since := l.lostAt
	if since.IsZero() || l.standing && !answered {
		l.mu.Unlock()
		return
	}
	l.lostAt = time.Time{}
	l.mu.Unlock()
	klog.Infof("etcd: %s answers again, after %v", l.Target(), time.Since(since).Round(time.Second/10))
	l.cfg.notify(EtcdFound, nil)
}

// Leaderless notes that the member at the other end says that it has no leader. A member for which this lasts is left: the next
// connection may lead to another one.
func (l *Link) Leaderless(err error) {
	l.mu.Lock()
	now := time.Now()
	if l.leaderless.IsZero() || now.Sub(l.leaderlessSeen) > leaderlessGap {
		l.leaderless = now
	}
	l.leaderlessSeen = now
	lasts := now.Sub(l.leaderless) >= leaderPatience
	leave := lasts && l.mayReset()
	l.mu.Unlock()
	if lasts {
		l.Lost(err)
	}
	if leave {
		l.closeSockets(nil)
	}
}
