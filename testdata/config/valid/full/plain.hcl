webhook {
  enable = true
  url    = "https://u:p@[::1]:8443/a/./b/../c%20d?x=1&y=%26"

  headers = {
    X-Api-Key     = "abc ${"def"}"
    Authorization = "Bearer a.b.c",
    accept        = "*/*"
  }

  body {
    encoding    = "base62"
    max_payload = "64KiB"
  }

  pool_size      = (2 + 5)
  cancel_timeout = "2.5s"
  ordering       = "none"

  tls {
    enable       = false
    verify_peer  = false
    key_password = "hunter2"
    server_name  = "example.com"
    min_version  = "1.3"
  }

  retry {
    min_backoff     = "100ms"
    max_backoff     = "1m"
    max_age         = -1
    max_attempts    = 5
    max_retry_after = "1h"
  }

  breaker {
    failures = -1
    cooldown = "1s"
  }

  queue {
    type          = "memory"
    capacity      = -1
    max_bytes     = "1GiB"
    overflow      = "block"
    block_timeout = "250ms"
  }

  events = [
    { event = "on_message_publish", topic = "$SYS/#" },
    { event = "on_client_connack", topic = "no//matter/#/what" },
    { event = "on_session_terminated" },
  ]
}

webhook "Two_2-x" {
  enable = false
  url    = "http://localhost"
}
