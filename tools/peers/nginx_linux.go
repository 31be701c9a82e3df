package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
)

// startNginx starts nginx with the stream module, which makes a socket for each flow.
func startNginx(b *bed) error {
	path, err := exec.LookPath("nginx")
	if err != nil {
		return err
	}
	file := filepath.Join(b.dir, "nginx.conf")
	text := fmt.Sprintf(`load_module /usr/lib/nginx/modules/ngx_stream_module.so;
daemon off; worker_processes auto; pid %[1]s/nginx.pid; error_log %[1]s/nginx.log crit;
events { worker_connections 8192; }
stream { server { listen %[2]s udp reuseport; proxy_pass %[3]s; proxy_timeout 60s; } }
`, b.dir, toRelay, b.sinkOf(0))
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return err
	}
	if _, err := b.serve(nil, path, "-e", filepath.Join(b.dir, "nginx.log"), "-c", file); err != nil {
		return err
	}
	if err := b.await(1 + runtime.NumCPU()); err != nil {
		return err
	}
	for range b.shape.flows {
		b.open([]byte{0x40}, toRelay)
	}
	return nil
}
