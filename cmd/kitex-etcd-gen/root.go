package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// operatorCommands are those of kitex-etcd, which some will type here.
var operatorCommands = []string{"instance", "instances", "services", "watch", "drain", "undrain", "weight", "console"}

// checkRoot refuses an argument that names no directory, and guesses what it was meant for.
func checkRoot(root string) error {
	info, err := os.Lstat(root)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return noDirectory(root)
	case err != nil:
		return err
	case info.Mode()&fs.ModeSymlink != 0:
		return fmt.Errorf("%s: symbolic links to directories are not followed: name the directory it points to", root)
	case !info.IsDir():
		return fmt.Errorf("%s: not a directory: name the directory that holds Kitex's output", root)
	}
	return nil
}

func noDirectory(root string) error {
	above, isPattern := strings.CutSuffix(filepath.ToSlash(root), "...")
	switch {
	case isPattern:
		return fmt.Errorf("%s: no such directory: a directory includes everything below it, without \"...\": name %s", root, cmp.Or(strings.TrimSuffix(above, "/"), "."))
	case root == "help" || root == "version" || root == "check":
		flag := map[string]string{"help": "-h", "version": "-version", "check": "-check"}[root]
		return fmt.Errorf("%s: no such directory: the flag is %s", root, flag)
	case slices.Contains(operatorCommands, root):
		return fmt.Errorf("%s: no such directory: what is registered in etcd is shown by another command, kitex-etcd: "+
			"go get -tool github.com/kitex-contrib/kitex-etcd/cmd/kitex-etcd", root)
	}
	return fmt.Errorf("%s: no such directory: run kitex first, or name the directory that holds its output", root)
}
