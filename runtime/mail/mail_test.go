package mail

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"mime"
	"net"
	"net/mail"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// smtpServer starts an SMTP server as a process of its own (see
// smtpserver_test.go) and returns its address. Mails appear as files in dir.
func smtpServer(t *testing.T, dir string, options ...string) (address string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), append(options, "MAIL_TEST_SMTP_DIR="+dir)...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe() // its end is the server's end
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the SMTP server: %v", err)
		}
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(line)
}

// certificate writes a certificate for 127.0.0.1 and its key to dir.
func certificate(t *testing.T, dir string) (file string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(dir, "cert.pem")
	both := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})...)
	if err := os.WriteFile(file, both, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func send(t *testing.T, url string, msg Message) error {
	t.Helper()
	m, err := Open(url)
	if err != nil {
		t.Fatal(err)
	}
	return m.Send(t.Context(), msg)
}

// received reads the mails that the server took.
func received(t *testing.T, dir string) (mails []*mail.Message) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.eml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		m, err := mail.ReadMessage(strings.NewReader(string(text)))
		if err != nil {
			t.Fatal(err)
		}
		mails = append(mails, m)
	}
	return mails
}

func TestSend(t *testing.T) {
	dir := t.TempDir()
	m, err := Open("smtp://" + smtpServer(t, dir) + "?from=" + url.QueryEscape("Shöp <shop@example.com>"))
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"one", "one", "two"} {
		if err := m.Send(t.Context(), Message{ID: id, To: "Ada <ada@example.com>", Subject: "Grüße, Ada", Text: "Hello\n.\nyou\n"}); err != nil {
			t.Fatal(err)
		}
	}
	mails := received(t, dir)
	if len(mails) != 3 {
		t.Fatalf("the server has %d mails, want 3", len(mails))
	}
	h := mails[0].Header
	from, _ := mail.ParseAddress(h.Get("From"))
	subject, _ := new(mime.WordDecoder).DecodeHeader(h.Get("Subject"))
	if from == nil || from.Name != "Shöp" || from.Address != "shop@example.com" || subject != "Grüße, Ada" || h.Get("To") != `"Ada" <ada@example.com>` {
		t.Errorf("got %v", h)
	}
	if body, _ := io.ReadAll(mails[0].Body); strings.ReplaceAll(string(body), "\r\n", "\n") != "Hello\n.\nyou\n" {
		t.Errorf("got body %q", body)
	}
	ids := map[string]int{}
	for _, m := range mails {
		ids[m.Header.Get("Message-Id")]++
	}
	if len(ids) != 2 {
		t.Errorf("got Message-IDs %v, want the same for the same mail only", ids)
	}
}

func TestSendEncrypted(t *testing.T) {
	dir := t.TempDir()
	cert := certificate(t, dir)
	starttls := smtpServer(t, dir, "MAIL_TEST_SMTP_CERT="+cert, "MAIL_TEST_SMTP_LOGIN=shop:s3cret")
	implicit := smtpServer(t, dir, "MAIL_TEST_SMTP_CERT="+cert, "MAIL_TEST_SMTP_LOGIN=shop:s3cret", "MAIL_TEST_SMTP_IMPLICIT=1")
	plain := smtpServer(t, dir)
	for _, tt := range []struct {
		name, url, want string // want "" is a mail that arrives
	}{
		{"STARTTLS", "smtp://shop:s3cret@" + starttls + "?ca=" + cert, ""},
		{"STARTTLS required", "smtp://shop:s3cret@" + starttls + "?tls=required&ca=" + cert, ""},
		{"implicit", "smtps://shop:s3cret@" + implicit + "?ca=" + cert, ""},
		{"required, not offered", "smtp://" + plain + "?tls=required", "STARTTLS"},
		{"unknown authority", "smtp://shop:s3cret@" + starttls, "certificate"},
		{"unknown authority, implicit", "smtps://shop:s3cret@" + implicit, "certificate"},
		{"wrong password", "smtp://shop:wr0ng@" + starttls + "?ca=" + cert, "AUTH"},
		{"no login", "smtp://" + starttls + "?ca=" + cert, "502"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := len(received(t, dir))
			err := send(t, tt.url, Message{ID: "1", To: "ada@example.com", Subject: "S", Text: "T"})
			arrived := len(received(t, dir)) - before
			if tt.want == "" && (err != nil || arrived != 1) {
				t.Errorf("got %v, %d mails; want one", err, arrived)
			}
			if tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want) || arrived != 0) {
				t.Errorf("got %v, %d mails; want an error with %q", err, arrived, tt.want)
			}
			if err != nil && (strings.Contains(err.Error(), "s3cret") || strings.Contains(err.Error(), "wr0ng")) {
				t.Errorf("the password is shown: %v", err)
			}
		})
	}
}

func TestRejected(t *testing.T) {
	dir := t.TempDir()
	at := "smtp://" + smtpServer(t, dir)
	for _, tt := range []struct {
		name     string
		msg      Message
		rejected bool
	}{
		{"unknown mailbox", Message{To: "nobody@example.com", Subject: "S"}, true},
		{"spam", Message{To: "ada@example.com", Subject: "SPAM"}, true},
		{"greylisted", Message{To: "later@example.com", Subject: "S"}, false},
		{"no address", Message{To: "ada", Subject: "S"}, true},
		{"two addresses", Message{To: "ada@example.com, eve@example.com", Subject: "S"}, true},
		{"header in the subject", Message{To: "ada@example.com", Subject: "S\r\nBcc: eve@example.com"}, true},
		{"header in the address", Message{To: "Ada\r\nBcc: eve@example.com <ada@example.com>", Subject: "S"}, true},
	} {
		if err := send(t, at, tt.msg); err == nil || errors.Is(err, ErrRejected) != tt.rejected {
			t.Errorf("%s: got %v, want it rejected for good: %v", tt.name, err, tt.rejected)
		}
	}
	if n := len(received(t, dir)); n != 0 {
		t.Errorf("%d mails arrived", n)
	}
	if err := send(t, "smtp://127.0.0.1:1", Message{To: "ada@example.com"}); err == nil || errors.Is(err, ErrRejected) {
		t.Errorf("no server: got %v, want an error that is worth a retry", err)
	}
}

// A server that takes the connection and then says nothing.
func TestSendHeedsContext(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	m, err := Open("smtp://" + l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	began := time.Now()
	err = m.Send(ctx, Message{To: "ada@example.com"})
	if took := time.Since(began); !errors.Is(err, context.DeadlineExceeded) || took > 5*time.Second {
		t.Errorf("got %v after %v, want the ctx's error in its time", err, took)
	}
}

func TestOpenRefuses(t *testing.T) {
	for _, tt := range []struct{ url, want string }{
		{"", "smtp://host:port"},
		{"localhost:25", "smtp://host:port"},
		{"http://me:secret@localhost", "smtp://host:port"},
		{"smtp://me:se%zzcret@localhost", "cannot be read"},
		{"smtp://me:secret@localhost:99999", "choose 1 to 65535"},
		{"smtp://me:secret@localhost?from=me", "write an address"},
		{"smtp://me:secret@localhost?tls=maybe", "choose required or none"},
		{"smtps://me:secret@localhost?tls=none", "contradicts"},
		{"smtp://me:secret@localhost?form=a@example.com", `no option "form"`},
		{"smtp://me:secret@localhost?ca=/nowhere.pem", "certificate authority"},
	} {
		_, err := Open(tt.url)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("Open(%q): got %v, want it to say %q", tt.url, err, tt.want)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("Open(%q) shows the password: %v", tt.url, err)
		}
	}
}
