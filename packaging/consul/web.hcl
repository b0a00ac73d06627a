# Registers the app of one host with the local Consul agent: /etc/consul.d/web.hcl
service {
  name = "web"
  port = 8080

  check {
    id       = "web-answers"
    http     = "http://127.0.0.1:8080/healthz"
    interval = "2s"
    timeout  = "2s"
  }

  # clusterd itself: its master's loop turns.
  check {
    id       = "clusterd"
    args     = ["/usr/bin/clusterd", "ping", "--home", "/run/clusterd"]
    interval = "10s"
    timeout  = "5s"
  }
}
