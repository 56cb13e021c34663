package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/kitex-contrib/kitex-etcd/templates"
)

// directory is one directory below a root, an argument of the command line.
type directory struct {
	path      string   // begins with the root as the user wrote it
	holder    string   // directory that holds it, below the root; slash-separated
	holderAbs string   // the same, absolute
	tree      string   // absolute path of the tree it belongs to: the innermost kitex_gen, or the root
	place     string   // its path below the tree; slash-separated
	files     []string // names of the Go files

	// What readPackage made of it.
	pkg   *kitexPackage
	types typeNames // of a directory that is no service
	err   error
}

// scan finds every service below the roots, in the order of their paths. It goes on after an error to report all of them.
func scan(roots []string, p *progress) ([]*kitexPackage, error) {
	var errs []error
	trees := make(map[string][]*directory)
	all := make(map[string]*directory) // by absolute path: roots may overlap
	for _, root := range outermostFirst(roots) {
		tree, err := listTree(root, all)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		trees[root] = tree
	}

	var readers errgroup.Group
	readers.SetLimit(runtime.GOMAXPROCS(0))
	for _, d := range all {
		p.step(len(all))
		readers.Go(func() error {
			d.pkg, d.err = readPackage(d)
			return nil
		})
	}
	readers.Wait() // each directory keeps its own error

	var packages []*kitexPackage
	for root, tree := range trees {
		found := false
		for _, d := range tree {
			found = found || d.pkg != nil || d.err != nil
		}
		if !found {
			errs = append(errs, fmt.Errorf("%s: no Kitex service below this directory: run kitex first, or name the directory that holds its output", root))
		}
	}
	for _, d := range all {
		if d.err == nil && d.pkg != nil {
			d.err = d.pkg.checkDeclared(all)
		}
		if d.err != nil {
			errs = append(errs, d.err)
		} else if d.pkg != nil {
			packages = append(packages, d.pkg)
		}
	}
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	slices.SortFunc(packages, func(a, b *kitexPackage) int { return strings.Compare(a.path, b.path) })
	return packages, errors.Join(errs...)
}

// outermostFirst returns the roots, cleaned and each once, those that hold others before these.
func outermostFirst(roots []string) []string {
	var cleaned []string
	for _, root := range roots {
		if root = filepath.Clean(root); !slices.Contains(cleaned, root) {
			cleaned = append(cleaned, root)
		}
	}
	length := func(root string) int {
		abs, _ := filepath.Abs(root) // listTree reports the error
		return len(abs)
	}
	slices.SortStableFunc(cleaned, func(a, b string) int { return cmp.Compare(length(a), length(b)) })
	return cleaned
}

// listTree returns the directories of a root, and adds to all those that it does not know yet.
func listTree(root string, all map[string]*directory) ([]*directory, error) {
	if err := checkRoot(root); err != nil {
		return nil, err
	}
	rootAbs, err := filepath.Abs(root)
	if err != nil {
		return nil, err
	}
	var tree []*directory
	walked := make(map[string]*directory) // by path; those that all knew already are missing
	err = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := entry.Name()
		if entry.IsDir() && name != templates.FileName {
			below, err := filepath.Rel(root, path)
			if err != nil {
				return err
			}
			abs := filepath.Join(rootAbs, below)
			if path != root && skipped(path, name, abs) {
				return fs.SkipDir
			}
			d, known := all[abs]
			if !known {
				d = newDirectory(path, below, abs, rootAbs)
				all[abs], walked[path] = d, d
			}
			tree = append(tree, d)
			return nil
		}
		// Everything with our file's name has to be looked at, also a link or a directory.
		if name == templates.FileName || isSource(path, entry) {
			if d := walked[filepath.Dir(path)]; d != nil {
				d.files = append(d.files, name)
			}
		}
		if entry.IsDir() {
			return fs.SkipDir
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return tree, nil
}

func newDirectory(path, below, abs, rootAbs string) *directory {
	d := &directory{path: path, holder: holder(below, abs), holderAbs: filepath.ToSlash(filepath.Dir(abs)), tree: rootAbs, place: filepath.ToSlash(below)}
	if tree, place, ok := cutLast(filepath.ToSlash(abs), kitexGen); ok {
		d.tree, d.place = tree+kitexGen, place
	}
	return d
}

// kitexGen is the directory of Kitex's output, unless -gen-path names another.
const kitexGen = "/kitex_gen/"

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

// skipped reports whether a directory is none of ours. Those that Go's own patterns leave out for their names are skipped,
// except where Kitex wrote them, for a namespace or a service called testdata or vendor.
func skipped(path, name, abs string) bool {
	switch {
	case name[0] == '_' || name[0] == '.':
		return true
	case name != "testdata" && name != "vendor" || strings.Contains(filepath.ToSlash(abs), kitexGen):
		return false
	}
	entries, _ := os.ReadDir(path)
	for _, entry := range entries {
		if !isSource(filepath.Join(path, entry.Name()), entry) {
			continue
		}
		if src, err := os.ReadFile(filepath.Join(path, entry.Name())); err == nil && byKitex(src) {
			return false
		}
	}
	return true
}

// isSource reports whether Go may take the entry at path for a source file. A link to a file counts: there are build systems
// that lay out all sources as links.
func isSource(path string, entry fs.DirEntry) bool {
	name := entry.Name()
	if !strings.HasSuffix(name, ".go") || name[0] == '_' || name[0] == '.' {
		return false
	}
	if entry.Type()&fs.ModeSymlink != 0 {
		info, err := os.Stat(path)
		return err == nil && info.Mode().IsRegular()
	}
	return entry.Type().IsRegular()
}

// holder returns the directory that holds the one at below, a path below the root; abs is its absolute path.
func holder(below, abs string) string {
	if dir := filepath.Dir(below); dir != "." {
		return filepath.ToSlash(dir)
	}
	return filepath.Base(filepath.Dir(abs))
}
