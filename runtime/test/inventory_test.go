package test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
	"github.com/kitex-contrib/kitex-etcd/runtime/etcdtest"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/record"
)

// TestRecords reads what servers of this and of other programs wrote, and what is no instance.
func TestRecords(t *testing.T) {
	cluster := etcdtest.Start(t)
	cli := etcdClient(t, cluster.Endpoints())
	c := connect(t, cluster)
	mustRegister(t, c.Registry(), serverInfo(testService, "10.0.0.1:80"))
	for key, value := range map[string]string{
		record.Key(etcd.DefaultPrefix, testService, "10.0.0.2:80"): `{"address":"10.0.0.2:80","tags":{"zone":"a"}}`,
		record.Key(etcd.DefaultPrefix, testService, "bad"):         "not JSON",
		record.Key(etcd.DefaultPrefix, testService, "a/b"):         testRecord("10.0.0.3:80"),
		record.Key(etcd.DefaultPrefix, "Hello2", "10.0.0.4:80"):    testRecord("10.0.0.4:80"),
		etcd.DefaultPrefix + "/stray":                              testRecord("10.0.0.5:80"),
		etcd.DefaultPrefix + "2/Hello/10.0.0.6:80":                 testRecord("10.0.0.6:80"),
	} {
		if _, err := cli.Put(testContext(t), key, value); err != nil {
			t.Fatal(err)
		}
	}
	read := func(service string) string {
		t.Helper()
		records, revision, err := c.Records(testContext(t), service)
		if err != nil {
			t.Fatal(err)
		}
		var all []string
		for _, r := range records {
			if r.Revision < 1 || r.Revision > revision {
				t.Errorf("%s: revision %d, etcd's is %d", r.Key, r.Revision, revision)
			}
			line := fmt.Sprintf("%s %s %s %d %v %v", r.Service, r.Network, r.Address, r.Weight, r.Tags["zone"], r.Lease != 0)
			if r.Err != nil {
				line = fmt.Sprintf("%s %v", r.Service, r.Err)
			}
			all = append(all, line)
		}
		return strings.Join(all, "\n")
	}
	hello := `Hello tcp 10.0.0.1:80 10  true
Hello tcp 10.0.0.2:80 10 a false
Hello ` + record.ErrKeyParts.Error() + `
Hello the value is not the JSON of an instance: `
	if got := read(testService); !strings.HasPrefix(got, hello) || strings.Count(got, "\n") != 3 {
		t.Errorf("got:\n%s\nwant:\n%s…", got, hello)
	}
	all := "\nHello2 tcp 10.0.0.4:80 10  false\nstray " + record.ErrKeyParts.Error()
	if got := read(""); !strings.HasPrefix(got, hello) || !strings.HasSuffix(got, all) {
		t.Errorf("got:\n%s\nwant:\n%s…%s", got, hello, all)
	}
	if got := read("Nobody"); got != "" {
		t.Errorf("got %s", got)
	}
	if _, _, err := c.Records(testContext(t), "a/b"); err == nil {
		t.Error("a name with a slash was read")
	}
}

// TestRecordsFails: the error says where and why, whatever that is, and comes in time.
func TestRecordsFails(t *testing.T) {
	cluster := etcdtest.Start(t)
	cluster.Stop()
	c := connect(t, cluster)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, _, err := c.Records(ctx, testService); err == nil || !strings.Contains(err.Error(), cluster.Endpoints()[0]) ||
		!strings.Contains(err.Error(), etcd.DefaultPrefix+"/Hello/") || !strings.Contains(err.Error(), "refused") {
		t.Errorf("%v", err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if _, _, err := c.Records(t.Context(), testService); !errors.Is(err, etcd.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
	if _, _, err := (*etcd.Conn)(nil).Records(t.Context(), testService); err == nil {
		t.Error("no error of a nil Conn")
	}
}
