namespace go base

struct Request {
    1: string message
}

struct Response {
    1: string message
}

service Base {
    Response ping(1: Request req)
}
