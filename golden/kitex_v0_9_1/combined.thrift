namespace go combined

struct Request {
    1: string message
}

struct Response {
    1: string message
}

service Buy {
    Response place(1: Request req)
}

service Sell {
    Response count(1: Request req)
}
