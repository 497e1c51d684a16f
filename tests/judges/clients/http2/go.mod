module couchgateway/judges/http2

go 1.24
