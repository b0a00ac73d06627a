# One host's worth of an app: clusterd is the task, its workers are its children.
job "web" {
  type = "service"

  update {
    max_parallel     = 1
    health_check     = "checks"
    min_healthy_time = "5s"
    auto_revert      = true
  }

  group "web" {
    count = 2

    # New connections end this long before the task gets its signal.
    shutdown_delay = "5s"

    network {
      port "http" {}
    }

    service {
      name = "web"
      port = "http"

      check {
        type     = "http"
        path     = "/healthz"
        interval = "2s"
        timeout  = "2s"
      }
    }

    task "clusterd" {
      driver = "exec"

      # More than drain_timeout and kill_timeout together.
      kill_timeout = "40s"
      kill_signal  = "SIGTERM"

      config {
        command = "/usr/bin/clusterd"
        args    = ["--workers", "max", "--port", "${NOMAD_PORT_http}", "--log-format", "json", "--", "node", "local/app.js"]
      }

      env {
        CLUSTERD_HOME = "${NOMAD_TASK_DIR}/clusterd"
      }

      resources {
        cpu    = 2000
        memory = 1024
      }
    }
  }
}
