namespace go streamclient

struct Request {
    1: string message
}

struct Response {
    1: string message
}

service In_streamclient {
    Response echo(1: Request req)
}
