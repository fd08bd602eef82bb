"""What an operator looks at and carries away: the server itself, and all that it holds of ours."""
