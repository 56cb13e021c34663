//go:build unix

package snapshot

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// openFlags keep a link from leading elsewhere, and a pipe from blocking.
const openFlags = syscall.O_NOFOLLOW | syscall.O_NONBLOCK

// checkRights refuses files that somebody else may have written: who can write a list can send calls anywhere.
func checkRights(info fs.FileInfo) error {
	if info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("others than its owner may write it (%v); its mode should be 0600", info.Mode().Perm())
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("it belongs to user %d, and this process runs as user %d", st.Uid, os.Geteuid())
	}
	return nil
}
