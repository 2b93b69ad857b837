"""From a query to delivered messages: plan, send, ledger."""
