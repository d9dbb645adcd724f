"""The other agents: their names and addresses, requests to them and answers for them."""
