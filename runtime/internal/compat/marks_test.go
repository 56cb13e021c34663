package compat

import (
	"testing"

	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
	"github.com/kitex-contrib/kitex-etcd/runtime/etcdtest"
)

// TestRegistryEtcdSeesMarks: what an operator wants of a server, its clients of both libraries see, because the server does it; and a mark is no
// instance to either.
func TestRegistryEtcdSeesMarks(t *testing.T) {
	cluster := etcdtest.Start(t)
	r, err := ours.registry(cluster.Endpoints(), prefix)
	if err != nil {
		t.Fatal(err)
	}
	for _, port := range []int{1001, 1002} {
		if err := r.Register(info(port, 10, map[string]string{"zone": "a"})); err != nil {
			t.Fatal(err)
		}
	}
	operator, err := etcd.Connect(cluster.Endpoints())
	if err != nil {
		t.Fatal(err)
	}
	defer operator.Close()
	const other = "tcp://127.0.0.1:1002 weight 10 zone a"
	for _, s := range []side{ours, theirs} {
		resolver, err := s.resolver(cluster.Endpoints(), prefix)
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, resolver, "tcp://127.0.0.1:1001 weight 10 zone a", other)
		for _, step := range []struct {
			mark etcd.Mark
			want []string
		}{
			{etcd.Mark{Drain: true}, []string{other}},
			{etcd.Mark{Weight: 1}, []string{"tcp://127.0.0.1:1001 weight 1 zone a", other}},
		} {
			if _, _, err := operator.SetMark(t.Context(), "Hello", "127.0.0.1:1001", step.mark, 0); err != nil {
				t.Fatal(err)
			}
			eventually(t, resolver, step.want...)
		}
		if cleared, err := operator.ClearMark(t.Context(), "Hello", "127.0.0.1:1001", 0); err != nil || !cleared {
			t.Fatal(cleared, err)
		}
		eventually(t, resolver, "tcp://127.0.0.1:1001 weight 10 zone a", other)
	}
}
