namespace go shop

service Prices {
    i64 of(1: string item)
}

service Checkout {
    i64 total(1: list<string> items)
}
