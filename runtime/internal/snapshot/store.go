package snapshot

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/kitex-contrib/kitex-etcd/runtime/internal/record"
)

const (
	// clockSkew is how far ahead of this process's clock that of another writer may be.
	clockSkew = time.Minute
	// tempLife is how long a temporary file is left to its writer.
	tempLife = time.Minute

	tempSuffix = ".tmp"
)

// Store is the directory of one program, as it reaches one etcd. It is a value without state.
type Store struct {
	Dir       string        // made with its parents, 0700, at the first Save
	MaxAge    time.Duration // older lists are not used
	Endpoints []string      // of etcd
	Prefix    string        // of all keys
	Program   string
}

// Save writes the list of a service, confirmed at a time by the etcd of this cluster ID, in place of the one before. An empty
// list only takes the place of another: who asks for names at random makes no files.
func (s *Store) Save(cluster uint64, service string, confirmed time.Time, instances []Instance) error {
	if len(instances) == 0 && !s.has(service) {
		return nil
	}
	l := &List{
		Cluster:   fmt.Sprintf("%x", cluster),
		Endpoints: s.Endpoints,
		Prefix:    s.Prefix,
		Service:   service,
		Program:   s.Program,
		Confirmed: confirmed.UTC(),
		Instances: instances,
	}
	b, err := encode(l)
	if err != nil {
		return err
	}
	dir := filepath.Join(s.Dir, l.Cluster)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return write(filepath.Join(dir, s.name(service)), b)
}

// has says whether there is a file of a service, of whatever cluster.
func (s *Store) has(service string) bool {
	clusters, _ := os.ReadDir(s.Dir)
	return slices.ContainsFunc(clusters, func(c fs.DirEntry) bool {
		_, err := os.Lstat(filepath.Join(s.Dir, c.Name(), s.name(service)))
		return err == nil
	})
}

// write puts a file in place whole: what is there under its name is always the old or the new content.
func write(path string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*"+tempSuffix) // 0600
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

// Sweep removes the temporary files of writers that died.
func (s *Store) Sweep(now time.Time) {
	temps, _ := filepath.Glob(filepath.Join(globEscaper.Replace(s.Dir), "*", ".*"+tempSuffix))
	for _, path := range temps {
		if info, err := os.Lstat(path); err == nil && now.Sub(info.ModTime()) > tempLife {
			_ = os.Remove(path)
		}
	}
}

var globEscaper = strings.NewReplacer(`*`, `\*`, `?`, `\?`, `[`, `\[`, `\`, `\\`)

// Load returns the newest list of a service that is fit to be used, and the file that it comes from. Without any file it
// returns nil and no error; the error says why those that there are do not count.
func (s *Store) Load(service string, now time.Time) (l *List, path string, err error) {
	clusters, err := os.ReadDir(s.Dir)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, "", nil
		}
		return nil, "", err
	}
	var unfit []error
	for _, c := range clusters {
		p := filepath.Join(s.Dir, c.Name(), s.name(service))
		found, err := s.load(p, service, now)
		switch {
		case err == nil && found.Cluster != c.Name():
			err = fmt.Errorf("it is of cluster %s, and lies among the files of %s", found.Cluster, c.Name())
		case errors.Is(err, fs.ErrNotExist), !c.IsDir():
			continue
		}
		if err != nil {
			unfit = append(unfit, fmt.Errorf("%s: %w", p, err))
		} else if l == nil || found.Confirmed.After(l.Confirmed) {
			l, path = found, p
		}
	}
	if l != nil {
		return l, path, nil
	}
	return nil, "", errors.Join(unfit...)
}

func (s *Store) load(path, service string, now time.Time) (*List, error) {
	b, err := read(path, checkRights)
	if err != nil {
		return nil, err
	}
	l, err := decode(b)
	if err != nil {
		return nil, err
	}
	return l, s.check(l, service, now)
}

// check says why a list that is whole is not the one that is looked for.
func (s *Store) check(l *List, service string, now time.Time) error {
	switch age := now.Sub(l.Confirmed); {
	case l.Service != service:
		return fmt.Errorf("it is of service %q", l.Service)
	case l.Prefix != s.Prefix:
		return fmt.Errorf("it is of prefix %q", l.Prefix)
	case l.Program != s.Program:
		return fmt.Errorf("it is of program %q", l.Program)
	case !slices.ContainsFunc(l.Endpoints, s.reaches):
		return fmt.Errorf("it is of another cluster, at %s", strings.Join(l.Endpoints, ","))
	case age < -clockSkew:
		return fmt.Errorf("it is from the future: %v", l.Confirmed)
	case age > s.MaxAge:
		return fmt.Errorf("it is %v old, more than the limit of %v", age.Round(time.Second), s.MaxAge)
	}
	keys := record.ServicePrefix(s.Prefix, service)
	for _, i := range l.Instances {
		if !strings.HasPrefix(i.Key, keys) || i.Address == "" || i.Weight < 1 {
			return fmt.Errorf("it holds what is not an instance of the service, at key %q", i.Key)
		}
	}
	return nil
}

// reaches says whether an endpoint is one of those that etcd is reached at. While etcd does not answer, nothing else
// tells one cluster from another.
func (s *Store) reaches(endpoint string) bool {
	return slices.ContainsFunc(s.Endpoints, func(e string) bool { return bare(e) == bare(endpoint) })
}

// bare is an endpoint without its scheme.
func bare(endpoint string) string {
	if _, rest, ok := strings.Cut(endpoint, "://"); ok {
		endpoint = rest
	}
	return strings.TrimSuffix(endpoint, "/")
}

// name is the file name of a service: as much of the service's name as reads well and fits, and a hash that tells all apart.
func (s *Store) name(service string) string {
	readable := strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', r == '-', r == '_':
			return r
		}
		return '_'
	}, service)
	sum := sha256.Sum256([]byte(s.Prefix + "\x00" + service + "\x00" + s.Program))
	return readable[:min(len(readable), 80)] + "-" + hex.EncodeToString(sum[:12]) + ".json"
}
