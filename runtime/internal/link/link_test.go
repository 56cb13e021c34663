package link

import (
	"context"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/kitex-contrib/kitex-etcd/runtime/etcdtest"
)

// newTestLink returns a Link to cluster that the test closes.
func newTestLink(t *testing.T, cfg Config) *Link {
	t.Helper()
	l, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		l.Refuse()
		l.Stop()
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// reach asks etcd something and returns the error of the last attempt.
func reach(t *testing.T, l *Link) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	cli, err := l.Get(ctx)
	if err != nil {
		return err
	}
	_, err = cli.Get(ctx, "x")
	return l.Explain(err)
}

func TestAResetLinkConnectsAnew(t *testing.T) {
	cluster := etcdtest.Start(t)
	for name, cfg := range map[string]func() Config{
		"own client": func() Config {
			return Config{Etcd: &clientv3.Config{Endpoints: cluster.Endpoints(), DialTimeout: 3 * time.Second}}
		},
		"caller's client": func() Config {
			cli, err := clientv3.New(clientv3.Config{Endpoints: cluster.Endpoints(), Logger: zap.NewNop()})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { cli.Close() })
			return Config{Etcd: &clientv3.Config{}, Client: cli}
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := newTestLink(t, cfg())
			up := l.NextUp()
			if err := reach(t, l); err != nil {
				t.Fatal(err)
			}
			waitFor(t, up)
			up = l.NextUp()
			if l.cfg.Client == nil {
				l.closeSockets(nil)
			} else {
				cluster.Stop()
				if err := cluster.Start(); err != nil {
					t.Fatal(err)
				}
			}
			if err := reach(t, l); err != nil {
				t.Error(err)
			}
			waitFor(t, up)
		})
	}
}

func waitFor(t *testing.T, ch <-chan struct{}) {
	t.Helper()
	select {
	case <-ch:
	case <-time.After(10 * time.Second):
		t.Fatal("nothing happened for 10 s")
	}
}
