namespace go api

service Foo_Windows {
    void Nothing()
}
