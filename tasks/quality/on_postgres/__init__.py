"""How rules are judged in Postgres: conditions on a row, metrics of the library in SQL, the rows set aside."""
