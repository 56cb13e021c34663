package main

import (
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
	files     []string // names of the Go files

	// What readPackage made of it.
	pkg *kitexPackage
	err error
}

// scan finds every service below the roots, in the order of their paths. It goes on after an error to report all of them.
func scan(roots []string, p *progress) ([]*kitexPackage, error) {
	var errs []error
	trees := make([][]*directory, len(roots))
	all := make(map[string]*directory) // by absolute path: roots may overlap
	for i, root := range roots {
		var err error
		if trees[i], err = listTree(filepath.Clean(root), all); err != nil {
			errs = append(errs, err)
		}
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
	for i, tree := range trees {
		found := tree == nil // an error is reported already
		for _, d := range tree {
			found = found || d.pkg != nil || d.err != nil
		}
		if !found {
			errs = append(errs, fmt.Errorf("%s: no Kitex service below this directory: run kitex first, or name the directory that holds its output", roots[i]))
		}
	}
	for _, d := range all {
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

// listTree returns the directories of a root, and adds to all those that it does not know yet.
func listTree(root string, all map[string]*directory) ([]*directory, error) {
	info, err := os.Lstat(root)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%s: no such directory: run kitex first, or name the directory that holds its output", root)
	case err != nil:
		return nil, err
	case info.Mode()&fs.ModeSymlink != 0:
		return nil, fmt.Errorf("%s: symbolic links are not followed: name the directory it points to", root)
	case !info.IsDir():
		return nil, fmt.Errorf("%s: not a directory: name the directory that holds Kitex's output", root)
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
			if path != root && (name == "testdata" || name == "vendor" || name[0] == '_' || name[0] == '.') {
				return fs.SkipDir
			}
			below, err := filepath.Rel(root, path)
			if err != nil {
				return err
			}
			abs := filepath.Join(rootAbs, below)
			d, known := all[abs]
			if !known {
				d = &directory{path: path, holder: holder(below, abs), holderAbs: filepath.ToSlash(filepath.Dir(abs))}
				all[abs], walked[path] = d, d
			}
			tree = append(tree, d)
			return nil
		}
		// Whatever bears our file's name has to be looked at, be it a link or a directory.
		if name == templates.FileName || strings.HasSuffix(name, ".go") && entry.Type().IsRegular() {
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

// holder returns the directory that holds the one at below, a path below the root; abs is its absolute path.
func holder(below, abs string) string {
	if dir := filepath.Dir(below); dir != "." {
		return filepath.ToSlash(dir)
	}
	return filepath.Base(filepath.Dir(abs))
}
