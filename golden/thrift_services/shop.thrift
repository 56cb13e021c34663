namespace go api

struct Request {
    1: string message
}

struct Response {
    1: string message
}

service Orders {
    Response place(1: Request req)
}

service Stock {
    Response count(1: Request req)
}

service Nothing {}
