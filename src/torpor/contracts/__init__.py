"""The clouds' contracts: data and translation, without sockets."""
