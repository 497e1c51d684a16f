module example.org/tickets

go 1.23
