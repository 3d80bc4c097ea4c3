"""The published table as a service on this machine: a JSON API, and a page to look at it. Searching itself is search_table's."""
