package snapshot

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// mountTmpfs returns a file system of its own, of a given size.
func mountTmpfs(t *testing.T, options string) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		t.Skipf("a small file system cannot be mounted here, which takes root: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return dir
}

// TestFullDisk: what does not fit is an error, leaves nothing behind, and the list before it in place.
func TestFullDisk(t *testing.T) {
	s := testStore(t)
	s.Dir = mountTmpfs(t, "size=64k")
	path := save(t, s, time.Now())
	if err := s.Save(testCluster, testService, time.Now(), testInstances(testService, 2000)); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("Save = %v, want that no space is left", err)
	}
	if l, _, err := s.Load(testService, time.Now()); err != nil || len(l.Instances) != 3 {
		t.Errorf("Load = %v, %v; want the list before", l, err)
	}
	if files, err := os.ReadDir(filepath.Dir(path)); err != nil || len(files) != 1 {
		t.Errorf("left are %v, %v; want one file", files, err)
	}
}

// TestReadOnlyDisk: it can be read from, and writing is an error.
func TestReadOnlyDisk(t *testing.T) {
	s := testStore(t)
	s.Dir = mountTmpfs(t, "size=64k")
	save(t, s, time.Now())
	if err := syscall.Mount("tmpfs", s.Dir, "tmpfs", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	if err := s.Save(testCluster, testService, time.Now(), testInstances(testService, 1)); !errors.Is(err, syscall.EROFS) {
		t.Errorf("Save = %v, want that the file system is read-only", err)
	}
	if l, _, err := s.Load(testService, time.Now()); err != nil || len(l.Instances) != 3 {
		t.Errorf("Load = %v, %v", l, err)
	}
}
