"""The routes whose requests are read, by the API they belong to."""

CHAT_COMPLETIONS = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
CHAT_ROUTES = (CHAT_COMPLETIONS, "/tokenize")
RESPONSES = "/v1/responses"
ANTHROPIC_ROUTES = ("/v1/messages", "/v1/messages/count_tokens")
