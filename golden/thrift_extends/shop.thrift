namespace go api

struct Request {
    1: string message
}

struct Response {
    1: string message
}

service Base {
    Response ping(1: Request req)
}

service Orders extends Base {
    Response place(1: Request req)
}

service Refunds extends Orders {
    Response refund(1: Request req)
}
