"""DiMint: the web app's routes, one module a group. Each has `add_routes(app, site)`."""
