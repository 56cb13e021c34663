namespace go api

service Vendor {
    void Nothing()
}

service TestData {
    void Nothing()
}
