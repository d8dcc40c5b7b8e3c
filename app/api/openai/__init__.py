"""OpenAI's requests and answers, so that its SDKs work unmodified; what is asked for is read as a request of ours."""
