package sni

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// nobody is the user of nginx if root runs the tests.
const nobody = 65534

const (
	smallBody = 700
	largeBody = 1 << 20
	// hugeBody does not fit into the buffers between a server and a client that reads nothing.
	hugeBody = 64 << 20
)

// nginx is a web server without privileges, with files of its own.
type nginx struct {
	t     *testing.T
	path  string // of the program
	dir   string // of its files
	names []string
	addr  string
	files map[string][]byte // that it serves, by name
	ended chan struct{}     // closed when it has ended
}

// serveNginx starts a server of HTTPS for some names. It skips the test if the program is
// not installed. The server takes files that are put below /put/, and the answer to /generation
// is that of the last reload.
func serveNginx(t *testing.T, names ...string) *nginx {
	t.Helper()
	n := &nginx{t: t, path: program(t, "nginx"), names: names, ended: make(chan struct{})}
	n.makeFiles()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n.addr = l.Addr().String()
	n.configure("1")
	// The listener is passed on, so that no connection comes too early.
	socket, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	log := &bytes.Buffer{}
	cmd := n.command()
	cmd.Env, cmd.ExtraFiles = []string{"NGINX=3;"}, []*os.File{socket}
	cmd.Stdout, cmd.Stderr = log, log
	err = errors.Join(cmd.Start(), nonblocking(socket)) // Start has made it blocking
	l.Close()
	socket.Close()
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = cmd.Wait() // it ends by a signal
		close(n.ended)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		<-n.ended
		if t.Failed() {
			t.Logf("%s: %s", names, log)
		}
	})
	return n
}

func nonblocking(file *os.File) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	ctlErr := raw.Control(func(fd uintptr) { err = syscall.SetNonblock(int(fd), true) })
	return errors.Join(ctlErr, err)
}

// makeFiles makes the directory, with the files to serve, and a certificate.
func (n *nginx) makeFiles() {
	dir, err := os.MkdirTemp("", "nginx")
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { os.RemoveAll(dir) })
	n.dir = dir
	random := rand.NewChaCha8([32]byte{})
	n.files = map[string][]byte{"small": make([]byte, smallBody), "large": make([]byte, largeBody)}
	for name, body := range n.files {
		_, _ = random.Read(body) // never fails
		n.write("www/"+name, body)
	}
	cert := certificate(n.t, n.names...)
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		n.t.Fatal(err)
	}
	n.write("cert", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]}))
	n.write("key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}))
}

func (n *nginx) write(name string, data []byte) {
	n.t.Helper()
	path := filepath.Join(n.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		n.t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		n.t.Fatal(err)
	}
}

// configure writes the configuration.
func (n *nginx) configure(generation string) {
	n.t.Helper()
	n.write("config", fmt.Appendf(nil, `daemon off; worker_processes 2; pid %[1]s/pid;
events { worker_connections 1000; }
http {
  access_log off; keepalive_requests 100000;
  client_body_temp_path %[1]s/put; proxy_temp_path %[1]s/tmp; fastcgi_temp_path %[1]s/tmp; uwsgi_temp_path %[1]s/tmp; scgi_temp_path %[1]s/tmp;
  server {
    listen %[2]s ssl http2; server_name _;
    ssl_protocols TLSv1.2 TLSv1.3; ssl_certificate %[1]s/cert; ssl_certificate_key %[1]s/key;
    location / { root %[1]s/www; }
    location /put/ { root %[1]s; dav_methods PUT; client_max_body_size 0; }
    location = /generation { return 200 %[3]s; }
  }
}
`, n.dir, n.addr, generation))
	n.write("put/.keep", nil)
	if os.Geteuid() == 0 {
		for _, path := range []string{".", "put"} {
			if err := os.Chown(filepath.Join(n.dir, path), nobody, nobody); err != nil {
				n.t.Fatal(err)
			}
		}
	}
}

// command returns the command nginx, with more arguments.
func (n *nginx) command(args ...string) *exec.Cmd {
	cmd := exec.Command(n.path, append([]string{"-p", n.dir, "-e", "stderr", "-c", "config"}, args...)...)
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
	return cmd
}

// signal asks the server to "reload" or to "stop".
func (n *nginx) signal(what string) {
	n.t.Helper()
	if out, err := n.command("-s", what).CombinedOutput(); err != nil {
		n.t.Fatalf("%s: %v\n%s", what, err, out)
	}
}

// reload gives the server another configuration while it runs.
func (n *nginx) reload(generation string) {
	n.t.Helper()
	n.configure(generation)
	n.signal("reload")
}
