// Package snapshot stores the last list of each service in a file, for programs that start while etcd is down. It owns the format, the
// rules for the use of a file, and the way of writing. discovery says when to write and when to read.
//
// A file is DIR/{cluster}/{service}-{hash of prefix, service and program}.json. Its content repeats these, and has a checksum:
//
//	(absent) ──Save──> temporary file, synced ──rename──> whole ──next Save──> whole
//	                        │ the writer dies
//	                        v
//	                   removed by a later Sweep
//
// So a reader finds a whole file or none, also if a writer dies. There may be several writers. The package does file I/O and nothing
// else: it starts nothing and keeps no state. The time is an argument. All functions may be called concurrently.
package snapshot

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/kitex-contrib/kitex-etcd/runtime/internal/record"
)

// version is that of the format. Files of another are not read.
const version = 1

// maxSize bounds what is read into memory: lists of 10,000 instances are about 2 MB.
const maxSize = 64 << 20

// List is the content of a file: the instances of one service, as etcd confirmed them at a time.
type List struct {
	Cluster   string     `json:"cluster"`   // etcd's cluster ID, in hexadecimal
	Endpoints []string   `json:"endpoints"` // that etcd was reached at
	Prefix    string     `json:"prefix"`    // of all keys
	Service   string     `json:"service"`
	Program   string     `json:"program"`   // that wrote the file
	Confirmed time.Time  `json:"confirmed"` // when etcd last confirmed the list, not when it was written
	Instances []Instance `json:"instances"` // sorted by address
}

// Instance is one record of a List.
type Instance struct {
	Key string `json:"key"` // in etcd
	record.Record
}

// file is the outer form. The checksum is that of the bytes of List as they are in the file.
type file struct {
	Version int             `json:"version"`
	SHA256  string          `json:"sha256"`
	List    json.RawMessage `json:"list"`
}

func encode(l *List) ([]byte, error) {
	list, err := json.Marshal(l)
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(file{Version: version, SHA256: checksum(list), List: list})
	return append(b, '\n'), err
}

func decode(b []byte) (*List, error) {
	var f file
	if err := json.Unmarshal(b, &f); err != nil {
		return nil, fmt.Errorf("it is damaged: %w", err)
	}
	if f.Version != version {
		return nil, fmt.Errorf("it is of version %d of the format; this program reads version %d", f.Version, version)
	}
	if f.SHA256 != checksum(f.List) {
		return nil, errors.New("it is damaged: the checksum does not match")
	}
	var l List
	if err := json.Unmarshal(f.List, &l); err != nil {
		return nil, fmt.Errorf("it is damaged: %w", err)
	}
	return &l, nil
}

func checksum(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// Read returns the content of a file, for people who want to look at it, also if the file is old or belongs to another user. The error
// says what is wrong with it.
func Read(path string) (*List, error) {
	b, err := read(path, func(fs.FileInfo) error { return nil })
	if err != nil {
		return nil, err
	}
	return decode(b)
}

// read reads a file if it is what check accepts.
func read(path string, check func(fs.FileInfo) error) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|openFlags, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, errors.New("it is not a regular file")
	case info.Size() > maxSize:
		return nil, fmt.Errorf("it has %d bytes, more than the %d that a list can take", info.Size(), maxSize)
	}
	if err := check(info); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	b.Grow(int(info.Size()) + bytes.MinRead)
	_, err = b.ReadFrom(io.LimitReader(f, maxSize))
	return b.Bytes(), err
}
