"""The pages for operators. They use the endpoints of the API, with its checks of scopes and sessions."""
