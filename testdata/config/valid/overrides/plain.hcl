webhook {
  url     = "https://u:p@127.0.0.1/hook"
  headers = { X-Api-Key = "k", accept = "*/*" }
  signing { secret = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz" }
  tls { server_name = "receiver" }
  events = [
    {
      event   = "on_message_publish"
      topic   = "cmd/#"
      headers = { x-api-key = "c", X-Kind = "cmd" }
      body    = { encoding = "base64" }
    },
    { event = "on_message_publish", topic = "log/#", url = "https://127.0.0.1:443/log", body = { encoding = "base62" } },
    { event = "on_client_connected" },
    { event = "on_client_disconnected", url = "http://other.test", name = "gone", headers = { Authorization = "Bearer x" } },
  ]
}
