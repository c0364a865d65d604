webhook {
  url = "http://127.0.0.1:80"
  headers = {
    "content-type" = "application/json",
  }
  body {
    encoding = "plain"
  }
  pool_size = 32
  events = [
    { event = "on_message_publish", topic = "a/b/c" },
    { event = "on_client_connack" },
  ]
}
