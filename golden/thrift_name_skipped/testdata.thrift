namespace go testdata

service Hello {
    void Nothing()
}
