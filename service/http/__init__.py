"""HTTP: connections, the gate that all requests pass, the endpoints."""
