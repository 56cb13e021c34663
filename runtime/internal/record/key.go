package record

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// ErrKeyParts is why a key below a prefix is not that of an instance.
var ErrKeyParts = errors.New("the key has more or fewer parts than {prefix}/{service}/{host:port}")

// ServicePrefix is what every key of a service begins with. The slash at its end keeps "echo" apart from "echo2".
func ServicePrefix(prefix, service string) string { return prefix + "/" + service + "/" }

// Key is the key of one instance: {prefix}/{service}/{host:port}.
func Key(prefix, service, addr string) string { return ServicePrefix(prefix, service) + addr }

// SplitKey is the reverse of Key. The service is as much of it as key names; the error is ErrKeyParts.
func SplitKey(prefix, key string) (service, addr string, err error) {
	below, ours := strings.CutPrefix(key, prefix+"/")
	service, addr, whole := strings.Cut(below, "/")
	if !ours || !whole || strings.Contains(addr, "/") {
		return service, addr, ErrKeyParts
	}
	return service, addr, nil
}

// CheckService refuses names that would write or read another service's keys.
func CheckService(name string) error {
	switch {
	case name == "":
		return errors.New("etcd: the service name is empty; name the service as in its IDL")
	case strings.Contains(name, "/"):
		return fmt.Errorf("etcd: service name %q contains '/', which separates the parts of a key; choose a name without it", name)
	case !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl):
		return fmt.Errorf("etcd: service name %q contains control characters or is not UTF-8", name)
	}
	return nil
}
