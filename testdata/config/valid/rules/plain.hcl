webhook {
  url = "http://127.0.0.1/hook"
  events = [
    {
      event     = "on_message_publish"
      topic     = "clients/#"
      except    = ["clients/+/debug", "clients/x"]
      clients   = ["sensor-*", "s?"]
      users     = ["alice", ""]
      listeners = ["tcp*"]
      inline    = false
    },
    { event = "on_client_connected", inline = true, except = ["no//matter"] },
  ]
}
