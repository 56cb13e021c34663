package etcd

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
	"testing"
	"time"
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

	for name, opt := range map[string]Option{
		"missing CA":          WithTLSOpt(good.cert, good.key, good.ca+".missing"),
		"key for certificate": WithTLSOpt(good.key, good.cert, good.ca),
		"nil config":          WithTLSConfig(nil),
	} {
		if conn, err := Connect([]string{addr}, WithAuthOpt("root", "s3cret"), opt); err == nil {
			conn.Close()
			t.Errorf("%s: Connect accepted it", name)
		}
	}
	if got := received(); len(got) > 0 {
		t.Fatalf("a constructor that failed sent %q", got)
	}

	for name, opt := range map[string]Option{
		"files":  WithTLSOpt(good.cert, good.key, good.ca),
		"config": WithTLSConfig(&tls.Config{}),
	} {
		addr, received := recordingListener(t)
		conn, err := Connect([]string{addr}, WithAuthOpt("root", "s3cret"), WithDialTimeoutOpt(time.Second), opt)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		for len(received()) == 0 && sleep(ctx, 10*time.Millisecond) {
		}
		cancel()
		conn.Close()
		if got := received(); len(got) == 0 || got[0] != 22 { // 22: a TLS handshake record
			t.Errorf("%s: the first bytes are %q, not a TLS handshake", name, got)
		}
	}
}
