//go:build unix

package snapshot

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kitex-contrib/kitex-etcd/runtime/internal/record"
)

const (
	testCluster = 0xcafe
	testService = "Hello"
)

func testStore(t *testing.T) *Store {
	return &Store{
		Dir:       filepath.Join(t.TempDir(), "made", "with its parents"),
		MaxAge:    time.Hour,
		Endpoints: []string{"http://10.0.0.1:2379", "http://10.0.0.2:2379"},
		Prefix:    "p",
		Program:   "prog",
	}
}

func testInstances(service string, n int) []Instance {
	list := make([]Instance, n)
	for i := range list {
		addr := fmt.Sprintf("10.0.%d.%d:8888", i/250, i%250)
		list[i] = Instance{record.Key("p", service, addr), record.Record{
			Network: "tcp", Address: addr, Weight: float64(1 + i), Tags: map[string]string{"zone": "<a>"},
		}}
	}
	return list
}

// save writes three instances and returns the file.
func save(t *testing.T, s *Store, confirmed time.Time) string {
	t.Helper()
	if err := s.Save(testCluster, testService, confirmed, testInstances(testService, 3)); err != nil {
		t.Fatal(err)
	}
	return s.path(testService)
}

func (s *Store) path(service string) string {
	return filepath.Join(s.Dir, fmt.Sprintf("%x", testCluster), s.name(service))
}

func mode(t *testing.T, path string) os.FileMode {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Mode().Perm()
}

// TestRoundTrip: what was saved is loaded, by the store and by those who look at the file; the directory is made, and nobody
// else may read any of it.
func TestRoundTrip(t *testing.T) {
	s := testStore(t)
	now := time.Now()
	if l, _, err := s.Load(testService, now); l != nil || err != nil {
		t.Fatalf("without a directory: %v, %v; want nothing", l, err)
	}
	path := save(t, s, now.Add(-time.Minute))
	l, from, err := s.Load(testService, now)
	if err != nil || from != path {
		t.Fatalf("loaded from %q: %v; want %q", from, err, path)
	}
	want := &List{"cafe", s.Endpoints, "p", testService, "prog", now.Add(-time.Minute).UTC().Round(0), testInstances(testService, 3)}
	if !reflect.DeepEqual(l, want) {
		t.Errorf("loaded %+v\nwant %+v", l, want)
	}
	if seen, err := Read(path); err != nil || !reflect.DeepEqual(seen, want) {
		t.Errorf("Read = %+v, %v", seen, err)
	}
	if got := mode(t, path); got != 0o600 {
		t.Errorf("the file has mode %v", got)
	}
	for _, dir := range []string{s.Dir, filepath.Dir(s.Dir), filepath.Dir(path)} {
		if got := mode(t, dir); got != 0o700 {
			t.Errorf("%s has mode %v", dir, got)
		}
	}
	if l, _, err := s.Load("Other", now); l != nil || err != nil {
		t.Errorf("another service: %v, %v; want nothing", l, err)
	}
}

// TestUnfit: files that do not count, each with the reason that a log line gives.
func TestUnfit(t *testing.T) {
	now := time.Now()
	rewrite := func(change func(b []byte) []byte) func(*testing.T, *Store, string) {
		return func(t *testing.T, _ *Store, path string) {
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, change(b), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	relist := func(change func(*List)) func(*testing.T, *Store, string) {
		return rewrite(func(b []byte) []byte {
			l, err := decode(b)
			if err != nil {
				t.Fatal(err)
			}
			change(l)
			b, err = encode(l)
			if err != nil {
				t.Fatal(err)
			}
			return b
		})
	}
	chmod := func(m os.FileMode) func(*testing.T, *Store, string) {
		return func(t *testing.T, _ *Store, path string) {
			if err := os.Chmod(path, m); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, tc := range map[string]struct {
		spoil func(t *testing.T, s *Store, path string)
		why   string
	}{
		"half written":      {rewrite(func(b []byte) []byte { return b[:len(b)/2] }), "damaged"},
		"empty":             {rewrite(func([]byte) []byte { return nil }), "damaged"},
		"not JSON":          {rewrite(func(b []byte) []byte { return bytes.Repeat([]byte{0}, len(b)) }), "damaged"},
		"one byte changed":  {rewrite(func(b []byte) []byte { return bytes.Replace(b, []byte("10.0.0.1:8888"), []byte("10.0.0.9:8888"), 1) }), "checksum"},
		"of another format": {rewrite(func(b []byte) []byte { return bytes.Replace(b, []byte(`"version":1`), []byte(`"version":2`), 1) }), "version 2"},
		"of another cluster": {relist(func(l *List) {
			l.Endpoints = []string{"10.9.9.9:2379"}
		}), "another cluster, at 10.9.9.9:2379"},
		"among another cluster's": {relist(func(l *List) { l.Cluster = "beef" }), "of cluster beef"},
		"of another prefix":       {relist(func(l *List) { l.Prefix = "q" }), `prefix "q"`},
		"of another service":      {relist(func(l *List) { l.Service = "Stock" }), `service "Stock"`},
		"of another program":      {relist(func(l *List) { l.Program = "other" }), `program "other"`},
		"with a foreign key":      {relist(func(l *List) { l.Instances[1].Key = "p/Stock/10.0.0.1:1" }), "p/Stock/10.0.0.1:1"},
		"without an address":      {relist(func(l *List) { l.Instances[1].Address = "" }), "not an instance"},
		"without a weight":        {relist(func(l *List) { l.Instances[1].Weight = 0 }), "not an instance"},
		"too old":                 {relist(func(l *List) { l.Confirmed = now.Add(-time.Hour - time.Second) }), "1h0m1s old"},
		"from the future":         {relist(func(l *List) { l.Confirmed = now.Add(clockSkew + time.Second) }), "future"},
		"writable by the group":   {chmod(0o620), "others than its owner may write"},
		"writable by others":      {chmod(0o602), "others than its owner may write"},
		"owned by another user": {func(t *testing.T, _ *Store, path string) {
			if os.Geteuid() != 0 {
				t.Skip("only root can give a file to another user")
			}
			if err := os.Chown(path, 12345, -1); err != nil {
				t.Fatal(err)
			}
		}, "belongs to user 12345"},
		"a directory": {func(t *testing.T, _ *Store, path string) {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Fatal(err)
			}
		}, "not a regular file"},
		"a pipe": {func(t *testing.T, _ *Store, path string) {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			if err := syscall.Mkfifo(path, 0o600); err != nil {
				t.Fatal(err)
			}
		}, "not a regular file"},
		"a link": {func(t *testing.T, s *Store, path string) {
			if err := os.Rename(path, path+".real"); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(path+".real", path); err != nil {
				t.Fatal(err)
			}
		}, "symbolic link"},
		"larger than any list": {func(t *testing.T, _ *Store, path string) {
			if err := os.Truncate(path, maxSize+1); err != nil {
				t.Fatal(err)
			}
		}, "bytes"},
		"below what is not a directory": {func(t *testing.T, s *Store, _ string) {
			if err := os.RemoveAll(s.Dir); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(s.Dir, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}, "not a directory"},
	} {
		t.Run(name, func(t *testing.T) {
			s := testStore(t)
			path := save(t, s, now)
			if l, _, err := s.Load(testService, now); l == nil || err != nil {
				t.Fatalf("before: %v, %v", l, err)
			}
			tc.spoil(t, s, path)
			l, _, err := s.Load(testService, now)
			if l != nil || err == nil || !strings.Contains(err.Error(), tc.why) || !strings.Contains(err.Error(), s.Dir) {
				t.Errorf("Load = %v, %v; want an error with %q and the file", l, err, tc.why)
			}
		})
	}
}

// TestClusterGrows: the etcd of a file is the same as long as one of its endpoints is, however that is written.
func TestClusterGrows(t *testing.T) {
	s := testStore(t)
	save(t, s, time.Now())
	s.Endpoints = []string{"10.0.0.3:2379", "10.0.0.2:2379"}
	if l, _, err := s.Load(testService, time.Now()); l == nil || err != nil {
		t.Errorf("Load = %v, %v", l, err)
	}
}

// TestTheNewestOfSeveral: an etcd that was rebuilt at the same endpoints has another cluster ID; the newest file counts, and
// one that is unfit is no reason against another.
func TestTheNewestOfSeveral(t *testing.T) {
	s := testStore(t)
	now := time.Now()
	for cluster, age := range map[uint64]time.Duration{1: 30 * time.Minute, 2: 10 * time.Minute, 3: 2 * time.Hour} {
		if err := s.Save(cluster, testService, now.Add(-age), testInstances(testService, 1)); err != nil {
			t.Fatal(err)
		}
	}
	if l, _, err := s.Load(testService, now); err != nil || l.Cluster != "2" {
		t.Errorf("Load = %v, %v; want that of cluster 2", l, err)
	}
}

// TestEmptyLists take the place of others, also of one from an etcd that is gone, and make no file where there is none.
func TestEmptyLists(t *testing.T) {
	s := testStore(t)
	now := time.Now()
	if err := s.Save(testCluster, testService, now, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(s.Dir); !os.IsNotExist(err) {
		t.Errorf("an empty list made the directory: %v", err)
	}
	if err := s.Save(1, testService, now.Add(-time.Minute), testInstances(testService, 3)); err != nil {
		t.Fatal(err)
	}
	if err := s.Save(testCluster, testService, now, nil); err != nil {
		t.Fatal(err)
	}
	if l, _, err := s.Load(testService, now); err != nil || l == nil || l.Cluster != "cafe" || len(l.Instances) != 0 {
		t.Errorf("Load = %+v, %v; want the empty list", l, err)
	}
}

// TestEveryServiceHasItsFile: whatever a service, a prefix or a program is called, its list is its own.
func TestEveryServiceHasItsFile(t *testing.T) {
	s := testStore(t)
	now := time.Now()
	var printable strings.Builder
	for r := rune(' '); r < 0x7f; r++ {
		if r != '/' {
			printable.WriteRune(r)
		}
	}
	names := []string{".", "..", "a.b", "a_b", "A_B", "..\\x", " ", "名前", "a*b", "a?b", "a[b]", "CON", "-rf", strings.Repeat("n", 400), printable.String()}
	for i := range 1000 {
		names = append(names, fmt.Sprintf("service %d", i))
	}
	for i, name := range names {
		if err := record.CheckService(name); err != nil {
			t.Fatal(err)
		}
		if err := s.Save(testCluster, name, now, testInstances(name, 1+i%3)); err != nil {
			t.Fatalf("%q: %v", name, err)
		}
	}
	for i, name := range names {
		if l, path, err := s.Load(name, now); err != nil || l.Service != name || len(l.Instances) != 1+i%3 || filepath.Dir(filepath.Dir(path)) != s.Dir {
			t.Errorf("%q: %+v, %v", name, l, err)
		}
	}
	for _, other := range []*Store{
		{Dir: s.Dir, MaxAge: s.MaxAge, Endpoints: s.Endpoints, Prefix: "q", Program: s.Program},
		{Dir: s.Dir, MaxAge: s.MaxAge, Endpoints: s.Endpoints, Prefix: s.Prefix, Program: "q"},
	} {
		if l, _, err := other.Load("a.b", now); l != nil || err != nil {
			t.Errorf("%+v: %v, %v; want nothing", other, l, err)
		}
	}
}

// TestSweep removes what writers that died have left, and nothing else.
func TestSweep(t *testing.T) {
	s := testStore(t)
	now := time.Now()
	path := save(t, s, now)
	dead, young := filepath.Join(filepath.Dir(path), ".a.json-1.tmp"), filepath.Join(filepath.Dir(path), ".a.json-2.tmp")
	other := filepath.Join(filepath.Dir(path), "other.tmp")
	for _, p := range []string{dead, young, other} {
		if err := os.WriteFile(p, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range []string{path, dead, other} {
		if err := os.Chtimes(p, now, now.Add(-2*tempLife)); err != nil {
			t.Fatal(err)
		}
	}
	s.Sweep(now)
	left, err := filepath.Glob(filepath.Join(filepath.Dir(path), "*"))
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{young, path, other}; !slices.Equal(left, want) {
		t.Errorf("left: %q, want %q", left, want)
	}
}

// TestTheFormatIsJSON: it can be read with other tools.
func TestTheFormatIsJSON(t *testing.T) {
	s := testStore(t)
	b, err := os.ReadFile(save(t, s, time.Now()))
	if err != nil {
		t.Fatal(err)
	}
	var f struct {
		Version int
		List    struct {
			Cluster   string
			Instances []struct{ Key, Address string }
		}
	}
	if err := json.Unmarshal(b, &f); err != nil || f.Version != 1 || f.List.Cluster != "cafe" || f.List.Instances[2].Address != "10.0.0.2:8888" {
		t.Errorf("%+v, %v", f, err)
	}
}
