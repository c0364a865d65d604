webhook {
  url    = "http://127.0.0.1:8080/hook"
  events = [{ event = "on_message_publish" }]
  queue {
    type       = "jetstream"
    url        = "nats://user:hunter2@10.0.0.1:4222,tls://10.0.0.2:4222"
    stream     = "EVENTS"
    partitions = 128
    replicas   = 3
    credsfile  = "document.conf"
    max_age    = "2h"
    max_bytes  = "1GiB"
    local {
      type          = "disk"
      dir           = "spool"
      sync          = "always"
      max_bytes     = "2MiB"
      overflow      = "block"
      block_timeout = "250ms"
    }
  }
}
webhook "plain" {
  url       = "http://127.0.0.1:8080/hook"
  pool_size = 7
  queue {
    type = "jetstream"
    url  = "nats://127.0.0.1"
  }
}
