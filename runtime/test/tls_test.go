package test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/server/v3/embed"

	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
	"github.com/kitex-contrib/kitex-etcd/runtime/etcdtest"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/link"
)

// authority is a certificate authority of a test.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber:          serial(t),
		Subject:               pkix.Name{CommonName: "test authority"},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(time.Hour),
		IsCA:                  true,
		KeyUsage:              x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

func serial(t *testing.T) *big.Int {
	t.Helper()
	n, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// issue returns a certificate for 127.0.0.1 (or dnsName, where one is given) and its key, in PEM.
func (a *authority) issue(t *testing.T, notAfter time.Time, dnsName string) (certPEM, keyPEM []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: serial(t),
		Subject:      pkix.Name{CommonName: "test"},
		NotBefore:    time.Now().Add(-2 * time.Hour),
		NotAfter:     notAfter,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if dnsName != "" {
		template.DNSNames = []string{dnsName}
	} else {
		template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER})
}

// certFiles are the files of one side.
type certFiles struct{ cert, key, ca string }

func newCertFiles(t *testing.T) certFiles {
	t.Helper()
	dir := t.TempDir()
	return certFiles{filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), filepath.Join(dir, "ca.pem")}
}

// write puts a new certificate of issuer, and trusted as the authority of the other side, into the files.
func (f certFiles) write(t *testing.T, issuer, trusted *authority, notAfter time.Time, dnsName string) certFiles {
	t.Helper()
	cert, key := issuer.issue(t, notAfter, dnsName)
	for name, content := range map[string][]byte{f.cert: cert, f.key: key, f.ca: trusted.pem} {
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

// recordingListener accepts connections, answers nothing, and keeps what it is sent.
func recordingListener(t *testing.T) (addr string, received func() []byte) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	data := make(chan []byte, 1)
	data <- nil
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			buf := make([]byte, 1<<16)
			_ = conn.SetDeadline(time.Now().Add(time.Second))
			n, _ := conn.Read(buf)
			data <- append(<-data, buf[:n]...)
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	return l.Addr().String(), func() []byte {
		d := <-data
		data <- d
		return d
	}
}

// TestNothingIsSentInPlaintext: a bad certificate file is an error of the constructor and opens no connection; a good
// one speaks TLS from the first byte, credentials or not.
func TestNothingIsSentInPlaintext(t *testing.T) {
	ca := newAuthority(t)
	good := newCertFiles(t).write(t, ca, ca, time.Now().Add(time.Hour), "")
	addr, received := recordingListener(t)

	for name, opt := range map[string]etcd.Option{
		"missing CA":          etcd.WithTLSOpt(good.cert, good.key, good.ca+".missing"),
		"key for certificate": etcd.WithTLSOpt(good.key, good.cert, good.ca),
		"nil config":          etcd.WithTLSConfig(nil),
	} {
		if conn, err := etcd.Connect([]string{addr}, etcd.WithAuthOpt("root", "s3cret"), opt); err == nil {
			conn.Close()
			t.Errorf("%s: Connect accepted it", name)
		}
	}
	if got := received(); len(got) > 0 {
		t.Fatalf("a constructor that failed sent %q", got)
	}

	for name, opt := range map[string]etcd.Option{
		"files":  etcd.WithTLSOpt(good.cert, good.key, good.ca),
		"config": etcd.WithTLSConfig(&tls.Config{}),
	} {
		addr, received := recordingListener(t)
		conn, err := etcd.Connect([]string{addr}, etcd.WithAuthOpt("root", "s3cret"), etcd.WithDialTimeoutOpt(time.Second), opt)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		for len(received()) == 0 && link.Sleep(ctx, 10*time.Millisecond) {
		}
		cancel()
		conn.Close()
		if got := received(); len(got) == 0 || got[0] != 22 { // 22: a TLS handshake record
			t.Errorf("%s: the first bytes are %q, not a TLS handshake", name, got)
		}
	}
}

// secureEtcd runs an etcd that serves TLS with server's files and, with mutual, asks clients for a certificate.
func secureEtcd(t *testing.T, server certFiles, mutual bool) *etcdtest.Cluster {
	t.Helper()
	return etcdtest.Start(t, etcdtest.WithConfig(func(c *embed.Config) {
		c.ClientTLSInfo = transport.TLSInfo{CertFile: server.cert, KeyFile: server.key}
		if mutual {
			c.ClientTLSInfo.TrustedCAFile, c.ClientTLSInfo.ClientCertAuth = server.ca, true
		}
	}))
}

// reach asks etcd something through the Conn and returns the error of the last attempt.
func reach(t *testing.T, conn *etcd.Conn, within time.Duration) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	_, _, err := conn.Records(ctx, "")
	return err
}

func TestTLS(t *testing.T) {
	hour := time.Now().Add(time.Hour)
	ca, other := newAuthority(t), newAuthority(t)
	server := newCertFiles(t).write(t, ca, ca, hour, "")
	client := newCertFiles(t).write(t, ca, ca, hour, "")
	stranger := newCertFiles(t).write(t, other, ca, hour, "")
	// In TLS 1.3 a client learns that its certificate was refused with its first read, or from a write to a closed
	// socket: only that there is a cause is certain.
	const refusedByEtcd = "WithTLSOpt"
	distrustful := newCertFiles(t).write(t, ca, other, hour, "")

	for _, tc := range []struct {
		name   string
		server certFiles
		mutual bool
		opt    etcd.Option
		want   string // of the error; empty: it works
	}{
		{"authority only", server, false, etcd.WithTLSOpt("", "", client.ca), ""},
		{"mutual", server, true, etcd.WithTLSOpt(client.cert, client.key, client.ca), ""},
		{"certificate that nobody asked for", server, false, etcd.WithTLSOpt(client.cert, client.key, client.ca), ""},
		{"no certificate where one is asked for", server, true, etcd.WithTLSOpt("", "", client.ca), refusedByEtcd},
		{"certificate of a stranger", server, true, etcd.WithTLSOpt(stranger.cert, stranger.key, stranger.ca), refusedByEtcd},
		{"wrong authority", server, false, etcd.WithTLSOpt("", "", distrustful.ca), "unknown authority"},
		{"system's authorities", server, false, etcd.WithTLSConfig(&tls.Config{}), "unknown authority"},
		{"expired", newCertFiles(t).write(t, ca, ca, time.Now().Add(-time.Hour), ""), false, etcd.WithTLSOpt("", "", client.ca), "expired"},
		{"wrong name", newCertFiles(t).write(t, ca, ca, hour, "etcd.example"), false, etcd.WithTLSOpt("", "", client.ca), "127.0.0.1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			cluster := secureEtcd(t, tc.server, tc.mutual)
			conn, err := etcd.Connect(cluster.Endpoints(), tc.opt)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if tc.want == "" {
				if err := reach(t, conn, 10*time.Second); err != nil {
					t.Error(err)
				}
				return
			}
			if err := reach(t, conn, 2*time.Second); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v does not say %q", err, tc.want)
			}
		})
	}
}

// TestRotatedCertificates: when every certificate and both authorities are replaced on disk, the next connection uses
// the new ones, without a restart.
func TestRotatedCertificates(t *testing.T) {
	hour := time.Now().Add(time.Hour)
	server, client := newCertFiles(t), newCertFiles(t)
	ca := newAuthority(t)
	server.write(t, ca, ca, hour, "")
	client.write(t, ca, ca, hour, "")
	cluster := secureEtcd(t, server, true)
	conn, err := etcd.Connect(cluster.Endpoints(), etcd.WithTLSOpt(client.cert, client.key, client.ca))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := reach(t, conn, 10*time.Second); err != nil {
		t.Fatal(err)
	}

	cluster.Stop()
	ca = newAuthority(t)
	server.write(t, ca, ca, hour, "")
	client.write(t, ca, ca, hour, "")
	if err := cluster.Start(); err != nil {
		t.Fatal(err)
	}
	if err := reach(t, conn, 10*time.Second); err != nil {
		t.Errorf("after the rotation: %v", err)
	}
}

// TestAResetLinkConnectsAnew: nextUp tells of each new connection, and reset brings one about.
