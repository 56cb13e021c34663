package link

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"

	"google.golang.org/grpc/credentials"
)

// TLSFiles names the files of WithTLSOpt.
type TLSFiles struct {
	Cert, Key, CA string
	Missing       bool // WithTLSConfig(nil)
}

// Load reads the files. Its errors name the file and never repeat its content.
func (f *TLSFiles) Load() (*tls.Config, error) {
	if f.Missing {
		return nil, errors.New("WithTLSConfig was given nil; leave the option out for a connection without TLS")
	}
	if f.Cert == "" && f.Key == "" && f.CA == "" {
		return nil, errors.New("WithTLSOpt was given no file; leave the option out for a connection without TLS, or use WithTLSConfig(&tls.Config{}) for the system's certificate authorities")
	}
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if f.Cert != "" || f.Key != "" {
		cert, err := tls.LoadX509KeyPair(f.Cert, f.Key)
		if err != nil {
			return nil, fmt.Errorf("load the TLS certificate %q with the key %q: %w", f.Cert, f.Key, err)
		}
		t.Certificates = []tls.Certificate{cert}
	}
	if f.CA != "" {
		pem, err := os.ReadFile(f.CA)
		if err != nil {
			return nil, fmt.Errorf("read the TLS certificate authorities: %w", err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read the TLS certificate authorities: %q holds no certificate in PEM", f.CA)
		}
	}
	return t, nil
}

// rotatingTLS reads the files again at each handshake, so that replaced certificates and authorities need no restart.
// Files that cannot be read fail the handshake; gRPC tries again.
type rotatingTLS struct {
	credentials.TransportCredentials // what was read last: answers Info
	files                            *TLSFiles
}

func newRotatingTLS(f *TLSFiles, loaded *tls.Config) credentials.TransportCredentials {
	return &rotatingTLS{TransportCredentials: credentials.NewTLS(loaded), files: f}
}

func (r *rotatingTLS) ClientHandshake(ctx context.Context, authority string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	t, err := r.files.Load()
	if err != nil {
		return nil, nil, err
	}
	return credentials.NewTLS(t).ClientHandshake(ctx, authority, conn)
}

func (r *rotatingTLS) Clone() credentials.TransportCredentials {
	return &rotatingTLS{TransportCredentials: r.TransportCredentials.Clone(), files: r.files}
}
