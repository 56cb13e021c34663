namespace go api

struct Request {
    1: string message
}

struct Response {
    1: string message
}

service Chat {
    Response say(1: Request req) (streaming.mode="unary")
}
