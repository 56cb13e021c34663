namespace go chat

struct Request {
    1: string message
}

struct Response {
    1: string message
}

service Chat {
    Response say(1: Request req)
    Response upload(1: Request req) (streaming.mode="client")
    Response download(1: Request req) (streaming.mode="server")
    Response talk(1: Request req) (streaming.mode="bidirectional")
}
