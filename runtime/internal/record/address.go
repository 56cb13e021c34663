package record

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// SplitHostPort is net.SplitHostPort for addresses that can be dialled: the host is not empty and holds no space, the
// port is a number from 1 to 65535.
func SplitHostPort(s string) (host string, port int, err error) {
	host, p, err := net.SplitHostPort(s)
	if err != nil {
		return "", 0, fmt.Errorf("%w; write host:port", err)
	}
	if host == "" || !PlainHost(host) {
		return "", 0, fmt.Errorf("host %q is empty or malformed; write host:port", host)
	}
	port, err = strconv.Atoi(p)
	if err != nil || port < 1 || port > 65535 {
		return "", 0, fmt.Errorf("port %q is not a number from 1 to 65535", p)
	}
	return host, port, nil
}

// ParseAddr splits an address to publish, host:port or a host alone, which gives port 0. IPv6 may be in brackets.
func ParseAddr(s string) (host string, port int, err error) {
	if bare := strings.TrimSuffix(strings.TrimPrefix(s, "["), "]"); net.ParseIP(bare) != nil || !strings.Contains(s, ":") {
		_, _, err = SplitHostPort(net.JoinHostPort(bare, "1"))
		return bare, 0, err
	}
	return SplitHostPort(s)
}

// PlainHost says whether host can be part of a key: no slash, no space, nothing that cannot be printed.
func PlainHost(host string) bool {
	return !strings.ContainsRune(host, '/') && !strings.ContainsFunc(host, func(r rune) bool {
		return unicode.IsSpace(r) || unicode.IsControl(r) || r == utf8.RuneError
	})
}
