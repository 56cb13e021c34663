package record

import "testing"

func TestParseAddr(t *testing.T) {
	for in, want := range map[string]struct {
		host string
		port int
	}{
		"10.0.0.1:80": {"10.0.0.1", 80}, "10.0.0.1": {"10.0.0.1", 0}, "svc.example": {"svc.example", 0},
		"[::1]:80": {"::1", 80}, "::1": {"::1", 0}, "[::1]": {"::1", 0},
	} {
		if host, port, err := ParseAddr(in); err != nil || host != want.host || port != want.port {
			t.Errorf("ParseAddr(%q) = %q, %d, %v; want %+v", in, host, port, err, want)
		}
	}
}
